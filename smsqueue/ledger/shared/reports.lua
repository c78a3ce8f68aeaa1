-- A message's rank: what was given up here (failed, cancelled, expired without a report) ranks
-- below everything that a provider says.
local function rank_of(state, reported)
  if state == 'expired' and reported ~= 'expired' then return 0 end
  return RANK[state] or 0
end

-- A report's effect on its message. An attempt of an earlier generation only counts if it
-- delivered: the operator chose to send again.
local function apply_report(id, attempt, state, provider, code)
  local hash = key('msg', id)
  local m = read(hash, 'state', 'reported', 'first', 'report', 'sent_at', 'attempt')
  if not m.state then return false end
  local old = attempt < tonumber(m.first or 1) and state ~= 'delivered'
  note(id, { state = state, why = old and 'report of an earlier sending' or 'report',
             provider = provider, attempt = attempt, code = code ~= '' and code or nil })
  if old or RANK[state] <= (RANK[m.reported] or 0) then return false end
  redis.call('HSET', hash, 'reported', state)
  if m.state == 'sending' then return false end -- the settle will take it into account
  local waits = CLAIMABLE[m.state]
  if waits and (state == 'expired' or state == 'undelivered') then return false end
  if RANK[state] <= rank_of(m.state, m.reported) then return false end
  enter(id, m.state, state, report_look(state, m.report), nil, provider)
  -- `sent_at` is that of the last attempt; an earlier one was never seen to be sent.
  if state == 'delivered' and m.sent_at and attempt == tonumber(m.attempt) then
    observe('delivered', provider, math.max(0, NOW - m.sent_at))
  end
  return true
end

-- Remembers that a provider's id means this attempt, and applies reports that came before. Adds
-- to `events` those that are to be published.
local function add_reference(id, attempt, provider, pid, events)
  local ref = provider .. ':' .. pid
  redis.call('SET', key('ref', ref), id .. '.' .. attempt)
  redis.call('SADD', key('refs', id), ref)
  local parked = key('parked', ref)
  local reports = redis.call('LRANGE', parked, 0, -1)
  redis.call('DEL', parked)
  for _, text in ipairs(reports) do
    -- The report counts even if its hook ran unmatched and its event is gone by now.
    local event, state, code = unpack(cjson.decode(text))
    local hash = key('event', event)
    if state ~= '' then apply_report(id, attempt, state, provider, code) end
    if redis.call('HGET', hash, 'state') == 'parked' then
      redis.call('HSET', hash, 'message', id)
      events[#events + 1] = unpark(event)
    end
  end
end
