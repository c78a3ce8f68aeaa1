-- Takes what is due in a lane, as far as the broker's queue has room: advances the time at which
-- somebody must next look, never removes. Publishing twice is harmless, forgetting is not.
-- ARGV: lane ('send', 'hook', or 'ask': messages whose provider is to be asked), quota
-- Returns: { id, attempts so far, id, attempts, ... }, what could not be looked at { id, cause, whether
--          it was put aside as damaged (1 or 0), ... }, whether more is due that there is room for (1 or '')
local lane, quota = ARGV[1], tonumber(ARGV[2])
local queue = lane == 'hook' and 'hook' or 'send'
local queued = length(queue)
-- Questions leave room for what is to be sent: they may be many, and their provider slow.
local most = { hook = WATERMARK, ask = math.ceil(BULK_WATERMARK / 2) }
local free = math.min(quota, (most[lane] or BULK_WATERMARK) - queued)
local passed = tonumber(redis.call('GET', key('passed', queue)) or 0) or 0
local due, taken = due_key(lane), {}
-- Records that one call looks at; ms between two of a line that are looked at; ms that publishing
-- takes at most, as a rule.
local MOST_LOOKS, APART, PUBLISHING = 300, 100, 50
local kind, failed, out_of_time = lane == 'hook' and 'event' or 'msg', {}, stopwatch()

-- A trigger is still in its queue, not lost, until one that was published clearly later has left it.
local function still_queued(m)
  return m.out and queued > 0 and passed <= tonumber(m.out) + GRACE / 2
end

-- Does a message wait for providers that are paused still? Then a worker need not find that out for
-- each of them: one after the other asks its router again, and probes the provider if its pause is
-- over; the rest of the line follows when one of them works, or a router sent somebody elsewhere.
local function in_line(id, m)
  local ends = sooner(tonumber(m.expires) or math.huge, m.pin_until)
  if not m.behind or not m.line or not m.looked or ends <= NOW then return false end
  local name, look = next_place(m.behind, m.line, NOW + 1000)
  if not name then return false end
  local pause = key('pause', name)
  local p = read(pause, 'looks', 'rerouted')
  if tonumber(m.looked) <= tonumber(p.rerouted or 0) then return false end
  if tonumber(p.looks or 0) <= NOW then
    redis.call('HSET', pause, 'looks', NOW + APART)
    return false
  end
  redis.call('HSET', pause, m.line, look)
  redis.call('ZADD', due, sooner(look, m.expires), id)
  return true
end

local function take(id, hash, m)
  note_out(hash)
  if lane == 'ask' then redis.call('HSET', hash, 'ask_now', 1) end
  taken[#taken + 1] = id
  taken[#taken + 1] = m.attempt or 0
  free = free - 1
end

local function look(id)
  local hash = key(kind, id)
  local m = read(hash, 'state', 'attempt', 'out', 'behind', 'line', 'looked', 'expires', 'pin_until')
  if not m.state and redis.call('EXISTS', hash) == 0 then
    redis.call('ZREM', due, id) -- it is forgotten
    return
  end
  check_record(kind, m)
  if lane == 'ask' and m.state ~= 'unknown' then
    redis.call('ZREM', due, id)
  elseif lane == 'send' and LANE[m.state] ~= 'send' or
      lane == 'hook' and (m.state == 'done' or m.state == 'dead' or m.state == 'unheard') then
    redis.call('ZREM', due, id)
    if LANE[m.state] == 'watch' then redis.call('ZADD', due_key('watch'), 'NX', NOW, id) end
  elseif lane ~= 'send' or not in_line(id, m) then
    redis.call('ZADD', due, NOW + GRACE, id)
    if lane == 'ask' or not still_queued(m) then take(id, hash, m) end
  end
end

local looks = 0
while free > 0 and looks < MOST_LOOKS and (looks < FEW or not out_of_time()) do
  local ids = redis.call('ZRANGEBYSCORE', due, '-inf', NOW, 'LIMIT', 0, free)
  if #ids == 0 then break end
  for _, id in ipairs(ids) do
    if looks >= FEW and out_of_time() then break end
    looks = looks + 1
    isolated(kind, id, failed, function() look(id) end)
  end
end
if #taken > 0 then
  redis.call('SET', key('filled', queue), queued + #taken / 2, 'PX', PUBLISHING)
end
return { taken, failed, free > 0 and (looks >= MOST_LOOKS or out_of_time()) and 1 or '' }
