-- Repairs a damaged record, as an operator asked for: bad fields are dropped or reconstructed, and it goes on in its
-- state. A message that a provider may have accepted becomes unknown, so nothing is sent twice.
-- ARGV: id, kind ('msg' | 'event'), whether the message or the event's data can be read (1 or ''), time of its id
--       (ms, or '' if it has none), event (id for an ending), names of fields whose JSON cannot be read...,
--       the action (see shared/audit_log.lua)
-- Returns: the state now, the event to publish or '', the causes { ... }
--          | 'gone', '', {} | 'beyond', '', { why it can only be removed }
local id, kind, readable = ARGV[1], ARGV[2], ARGV[3] ~= ''
local hash = key(kind, id)
if redis.call('EXISTS', hash) == 0 then
  redis.call('HDEL', key('damaged'), id)
  return { 'gone', '', {} }
end
local bad, cause = bad_fields(kind, id)
if not bad then return { 'beyond', '', { cause } } end
local causes = {}
for _, field in ipairs(bad) do causes[#causes + 1] = bad[field] end
for i = 6, #ARGV do
  bad[#bad + 1], bad[ARGV[i]] = ARGV[i], ARGV[i] .. ' is not JSON'
  causes[#causes + 1] = bad[ARGV[i]]
end
if not readable then causes[#causes + 1] = 'what was to be sent or told cannot be read' end
local entry = redis.call('HGET', key('damaged'), id)
local was_aside = redis.call('HDEL', key('damaged'), id)
if #causes == 0 and was_aside == 0 then return { redis.call('HGET', hash, 'state'), '', {} } end

if kind == 'event' then
  if not readable then
    redis.call('HSET', key('damaged'), id,
               cjson.encode({ kind = kind, cause = causes[#causes], at = NOW }))
    return { 'beyond', '', causes }
  end
  audit_count('done', 1, id)
  for _, field in ipairs(bad) do unset(hash, field) end
  if bad.done then redis.call('DEL', key('done', id)) end
  local e = read(hash, 'state', 'not_before')
  if e.state then redis.call('ZREM', key('state', e.state), id) end
  if e.state == 'waiting' or e.state == 'parked' or e.state == 'running' then
    redis.call('HDEL', hash, 'token', 'lease')
    hold_webhook_again(id)
    if e.not_before then
      put_off(id, e.state == 'parked' and 'parked' or 'waiting', e.not_before)
      return { redis.call('HGET', hash, 'state'), '', causes }
    end
    return { 'waiting', hand_over(id), causes }
  end
  local ends = e.state or 'dead' -- whether handlers ran is unknown: an operator may replay it
  redis.call('HSET', hash, 'state', ends)
  if not e.state then redis.call('HSET', hash, 'why', 'its record was damaged') end
  redis.call('ZADD', key('state', ends), NOW, id)
  redis.call('ZADD', key('event_ends'), NOW + RETENTION, id)
  return { ends, '', causes }
end

audit_count('done', 1, id)
local text = redis.call('HGET', hash, 'timeline')
local lines = text and timeline_of(text)
local newest = lines and #lines > 0 and lines[#lines].state or nil
-- The state under which it is listed, or was until it was set aside.
local listed = nil
for _, state in ipairs(MESSAGE_STATES) do
  if redis.call('ZSCORE', key('state', state), id) then listed = state end
end
if not listed and entry then
  local well, damaged = pcall(cjson.decode, entry)
  if well and type(damaged) == 'table' and is_one_of(damaged.was, MESSAGE_STATES) then listed = damaged.was end
end
-- Attempts in the timeline; nil: it cannot be read.
local known
if lines and #lines > 0 then
  known = 0
  for _, line in ipairs(lines) do known = math.max(known, tonumber(line.attempt) or 0) end
  local first = lines[1]
  if bad.not_before and type(first.next) == 'number' then
    redis.call('HSET', hash, 'since', first.next) -- the time of a scheduled message
    bad.since = nil
  end
end
for _, field in ipairs(bad) do
  if bad[field] and field ~= 'timeline' then unset(hash, field) end
end
local m = read(hash, 'state', 'attempt', 'calling', 'called', 'settled', 'sent_at', 'msgid', 'reported',
               'report', 'provider', 'pin', 'since', 'number', 'token', 'not_before', 'expires', 'tags')
local attempts = tonumber(m.attempt) or known
if attempts and known then attempts = math.max(attempts, known) end
if not attempts and not (bad.attempt or m.provider or m.calling or m.called or m.settled) then
  attempts = 0
end
-- The number of attempts is lost: continue with one that no attempt has had.
if attempts ~= (tonumber(m.attempt) or 0) or bad.attempt then
  redis.call('HSET', hash, 'attempt', attempts or 1000)
end

-- Its provider may have been called, even if the time of the call is lost.
local calling = m.calling or bad.calling or newest == 'sending'
-- No provider has been called, as far as the record shows.
local untouched = attempts == 0 and not (calling or bad.called or m.called or m.settled or m.provider or m.msgid)
-- A message that ended without a provider stays ended.
local OVER = { cancelled = true, expired = true, failed = true }
local over = OVER[listed] and listed or OVER[newest] and newest
local state, why = m.state, nil
if not state then
  state = RANK[m.reported] and m.reported or m.sent_at and 'sent' or untouched and (over or 'queued') or 'unknown'
elseif state == 'sending' then
  local ended = m.settled and string.sub(m.settled, 1, #(m.token or '') + 1) == (m.token or '') .. '.'
  if RANK[m.reported] then state = m.reported
  elseif m.sent_at or ended and string.match(m.settled, '%.sent$') then state = 'sent'
  elseif calling or ended or m.pin or not attempts then state = 'unknown'
  else state = attempts == 0 and 'queued' or 'retrying' end
elseif CLAIMABLE[state] and (m.pin or not attempts) then
  state = 'unknown'
end
if CLAIMABLE[state] then
  if bad.expires then why = 'until when it is valid cannot be read'
  elseif not readable then why = 'what was to be sent cannot be read'
  elseif bad.not_before and state == 'scheduled' and not m.since then
    why = 'when it is to be sent cannot be read'
  end
  if why then state = 'failed' end
end

if not lines or #lines == 0 then
  local accepted = tonumber(ARGV[4]) or m.since and math.floor(m.since) or NOW
  redis.call('HSET', hash, 'timeline', cjson.encode({ { at = accepted, state = 'queued',
    why = 'the lines before the repair could not be read' } }))
end
redis.call('HDEL', hash, 'calling', 'ask_now')
note(id, { state = state, why = 'repaired by an operator: ' .. (causes[1] or 'nothing was wrong'),
           by = operator_name() })
if m.number then redis.call('ZADD', key('number', m.number), 'NX', NOW, id) end
for _, index in ipairs(tag_indexes(m.tags)) do redis.call('ZADD', index, 'NX', accepted_at(id), id) end

local from = m.state or listed
if state == 'unknown' then
  uncertain(id, from, nil, nil)
  return { state, '', causes }
elseif state == 'failed' and state ~= from then
  enter(id, from, state, nil, 'DamagedRecord')
  return { state, add_ending(ARGV[5], id, 'MessageError', 'failed: its record was damaged'), causes }
elseif CLAIMABLE[state] then
  local time = tonumber(m.not_before) or bad.not_before and tonumber(m.since) or NOW
  if bad.not_before and time > NOW then redis.call('HSET', hash, 'not_before', time) end
  enter(id, from, state, sooner(math.max(time, NOW), m.expires))
  return { state, '', causes }
end
enter(id, from, state, report_look(state, m.report))
return { state, '', causes }
