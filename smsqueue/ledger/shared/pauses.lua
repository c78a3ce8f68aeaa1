-- Pauses by operators. A scope is 'all', 'tag:<tag>' or 'provider:<name>'.
--
-- `held` says which tags are paused, and whether everything is: the end (ms; 0: none), a space, and who, why and since when
-- as JSON. A message that may not be sent because of it is held: it is listed in `held:<lane>:<scope>` in the order in which it waits, and
-- its due set looks at it only every LOOK_AGAIN ms, or when its validity ends. When the pause is over, upkeep releases what
-- is held, no faster than it publishes.
--
-- A provider is paused in `pause:<provider>`, as after errors, so that workers of older versions obey, too. The fields
-- `by`, `reason`, `paused_at` and `ends` (missing: none) are the operator's; `until` is at most HORIZON ahead, and upkeep
-- prolongs it: an older worker that has just read it puts no message off for longer. `auto_until` is the end of a
-- pause that the provider asked for, which continues after the operator's.
--
-- `due:release` says when a scope is to be looked at: its pause is over, or is to be prolonged.
local LOOK_AGAIN, HORIZON, MOST_WAIT = 3600000, 3600000, 600000
local HELD_LANES = { 'send', 'send_bulk', 'ask' }

-- Tags that are paused now, and 'all': their ends (ms; math.huge: none).
local scopes_in_force
local function held_scopes()
  if scopes_in_force then return scopes_in_force end
  scopes_in_force = {}
  local list = redis.call('HGETALL', key('held'))
  for i = 1, #list, 2 do
    local ends = tonumber(string.match(list[i + 1], '^%d+'))
    if ends == 0 then ends = math.huge end
    if ends and ends > NOW then scopes_in_force[list[i]] = ends end
  end
  return scopes_in_force
end

-- The scope because of which a message with these tags may not be sent now; nil: it may.
local function paused_scope(tags)
  local scopes = held_scopes()
  if next(scopes) == nil then return nil end
  if scopes.all then return 'all' end
  for tag in string.gmatch(tags or '', '%S+') do
    if scopes['tag:' .. tag] then return 'tag:' .. tag end
  end
  return nil
end

-- Holds a message that is due in a lane. m: its fields held, expires and pin_until
-- Returns: when it is looked at next
local function hold(lane, id, m, scope)
  local place = lane .. ':' .. scope
  if m.held ~= place then
    if m.held then index_remove(key('held', m.held), id) end
    set(key('msg', id), 'held', place)
    index_add(key('held', place), NOW, id)
  end
  local look = sooner(sooner(NOW + LOOK_AGAIN, m.expires), m.pin_until)
  index_add(due_key(lane), look, id)
  return look
end

-- How many messages are held because of a scope.
local function number_held(scope)
  local number = 0
  for _, lane in ipairs(HELD_LANES) do number = number + redis.call('ZCARD', key('held', lane .. ':' .. scope)) end
  return number
end

local function provider_of(scope) return string.match(scope, '^provider:(.*)$') end

-- How many messages probably wait for a paused provider: its wait queues are a millisecond apart.
local function number_waiting(provider)
  local p, number = read(key('pause', provider), 'single', 'bulk'), 0
  for line, lane in pairs({ single = 'send', bulk = 'send_bulk' }) do
    if p[line] then number = number + redis.call('ZCOUNT', due_key(lane), '(' .. NOW, p[line]) end
  end
  return number
end

-- Ends an operator's pause of a provider. What waits in its queues is released.
-- at_once: end the pause that the provider asked for, too
local function end_provider_pause(provider, at_once)
  local pause = key('pause', provider)
  local p = read(pause, 'until', 'auto_until', 'single', 'bulk', 'error')
  local asked_for = tonumber(p.auto_until or 0)
  if asked_for > NOW and not at_once then
    redis.call('HSET', pause, 'until', asked_for, 'since', MOMENT)
    redis.call('HDEL', pause, 'by', 'reason', 'ends', 'paused_at', 'auto_until')
    redis.call('ZREM', due_key('release'), 'provider:' .. provider)
    return
  end
  redis.call('DEL', pause)
  redis.call('SREM', key('pauses'), provider)
  local health = key('health', provider)
  redis.call('HSET', health, 'since', MOMENT, 'times', 0)
  redis.call('HDEL', health, 'recent')
  redis.call('EXPIRE', health, 86400)
  local last = math.max(tonumber(p['until'] or 0), tonumber(p.single or 0), tonumber(p.bulk or 0))
  local range = key('release', provider)
  redis.call('DEL', range)
  redis.call('HSET', range, 'last', last)
  for _, lane in ipairs(HELD_LANES) do redis.call('HSET', range, lane, string.format('%.0f 0', NOW + 1)) end
  redis.call('PEXPIRE', range, 86400000)
  redis.call('ZADD', due_key('release'), NOW, 'provider:' .. provider)
end

-- Prolongs the pause of a provider; returns when to do so again.
local function prolong(provider, ends)
  redis.call('HSET', key('pause', provider), 'until', math.min(ends or math.huge, NOW + HORIZON))
  return math.min(ends or math.huge, NOW + HORIZON / 2)
end

-- The next message of a lane that waited for a provider; nil: there is none, or many others were read. `release:<provider>`
-- says how far each lane has been read: a score, and how many entries of that score.
local MOST_READ, number_read, has_released = 500, 0, false
local function next_waiting(provider, lane)
  local range, due = key('release', provider), due_key(lane)
  local r = read(range, 'last', lane)
  if not r[lane] then return nil end
  local at, passed = string.match(r[lane], '^(%S+) (%d+)$')
  passed = tonumber(passed)
  while number_read < MOST_READ do
    local page = redis.call('ZRANGEBYSCORE', due, at, r.last, 'WITHSCORES', 'LIMIT', passed, 10)
    if #page == 0 then
      redis.call('HDEL', range, lane)
      return nil
    end
    for i = 1, #page, 2 do
      local id, hash = page[i], key('msg', page[i])
      number_read = number_read + 1
      if page[i + 1] ~= at then at, passed = page[i + 1], 0 end
      local well, m = pcall(read, hash, 'waiting_for', 'provider', 'state', 'ask_now')
      local waits = well and (lane == 'ask' and m.state == 'unknown' and m.provider == provider and not m.ask_now or
        lane ~= 'ask' and m.waiting_for and string.find(' ' .. m.waiting_for .. ' ', ' ' .. provider .. ' ', 1, true))
      if waits then
        redis.call('HSET', range, lane, at .. ' ' .. passed)
        unset(hash, 'waiting_for', 'wait_queue', 'checked_at')
        return id
      end
      passed = passed + 1
    end
    redis.call('HSET', range, lane, at .. ' ' .. passed)
  end
  return nil
end

-- The next message of a lane that was held because of a scope; nil: there is none.
local function next_held(scope, lane)
  local place = lane .. ':' .. scope
  while true do
    local id = redis.call('ZRANGE', key('held', place), 0, 0)[1]
    if not id then return nil end
    redis.call('ZREM', key('held', place), id)
    -- A command of an older version may have ended it.
    local well, m = pcall(read, key('msg', id), 'held', 'state')
    if well and m.held == place then
      redis.call('HDEL', key('msg', id), 'held')
      if CLAIMABLE[m.state] or lane == 'ask' and m.state == 'unknown' then return id end
    end
  end
end

-- Makes the next message of a lane due that waited for one of these scopes; returns it, or nil.
local function next_released(lane, scopes)
  for _, scope in ipairs(scopes) do
    local provider = provider_of(scope)
    local id
    if provider then id = next_waiting(provider, lane) else id = next_held(scope, lane) end
    if id then
      has_released = true
      unset(key('msg', id), 'published_at', 'overtaken')
      redis.call('ZADD', due_key(lane), NOW, id)
      return id
    end
  end
  return nil
end

-- Looks at the scopes whose time has come; returns those whose pause is over.
local function released_scopes()
  local over = {}
  for _, scope in ipairs(redis.call('ZRANGEBYSCORE', due_key('release'), '-inf', NOW, 'LIMIT', 0, 10)) do
    local provider, again = provider_of(scope), nil
    if provider then
      local p = read(key('pause', provider), 'by', 'ends')
      local ends = tonumber(p.ends)
      if p.by and (ends or math.huge) > NOW then
        again = prolong(provider, ends)
      elseif p.by then
        end_provider_pause(provider, false)
      end
    else
      again = held_scopes()[scope]
    end
    if again == math.huge then redis.call('ZREM', due_key('release'), scope)
    elseif again then redis.call('ZADD', due_key('release'), again, scope)
    else over[#over + 1] = scope end
  end
  return over
end

-- Forgets the scopes of which nothing is left to be released. Returns whether more can be released at once.
local function forget_released(scopes)
  local left = false
  for _, scope in ipairs(scopes) do
    local provider, over = provider_of(scope), nil
    if provider then over = redis.call('HLEN', key('release', provider)) <= 1
    else over = number_held(scope) == 0 end
    if over then
      redis.call('ZREM', due_key('release'), scope)
      if provider then redis.call('DEL', key('release', provider))
      elseif not held_scopes()[scope] then redis.call('HDEL', key('held'), scope) end
    else
      left = true
    end
  end
  return left and (has_released or number_read > 0)
end
