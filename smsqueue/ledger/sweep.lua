-- Ends leases whose worker is gone and waits for reports, and deletes records after the retention.
-- ARGV: quota, lost workers after which a message whose provider was never called fails, prefix of ids for the events
--       of endings, what can be done about a message that a provider
--       may have accepted (JSON: provider -> the fields of Remedies in script_values.py), name of
--       the process (do nothing if another one has swept recently; '': sweep in any case)
-- Returns: messages whose worker is gone { id, state, event to publish or '', id ... }, all of them are to be
--          published; records that failed { id, cause, whether it was set aside as damaged (1 or 0), ... }; whether
--          the quota was used up, so that there may be more (1 or '')
-- After so many ms another process may sweep, in case this one died.
local TURN = 3000
local sweeper = ARGV[5] or ''
if sweeper ~= '' then
  local other = redis.call('GET', key('sweeper'))
  if other and other ~= sweeper then return { {}, {}, '' } end
  redis.call('SET', key('sweeper'), sweeper, 'PX', TURN)
end

check_indexes()
local quota, max_lapses, events = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local lapsed, failed, full, out_of_time = {}, {}, false, stopwatch()

-- Calls a function for each id that is due in a set, within the quota and the time limit.
local function for_each_due(set, time, run)
  local ids = redis.call('ZRANGEBYSCORE', set, '-inf', time, 'LIMIT', 0, quota)
  full = full or #ids >= quota
  for i, id in ipairs(ids) do
    if i > FEW and out_of_time() then
      full = true
      return
    end
    run(id)
  end
end
local remedies = cjson.decode(ARGV[4])
-- Limits how many workers a message can end.
local MOST_PINNED = 3
local NO_ANSWER = 'its worker did not report back in time'

local function lapse(id, m)
  local hash, event = key('msg', id), ''
  local same = (m.token or '') .. '.' .. (m.attempt or 0) .. '.'
  -- The mark of a call was lost: its provider may have the message all the same.
  if not m.calling and m.awaited_attempt and m.awaited_attempt == m.attempt then m.calling = NOW end
  -- A settle that failed halfway has removed the mark, but recorded how the last call ended. After a refusal ('retry')
  -- or without a call ('wait') the message may be sent again.
  local settled = string.sub(m.settled or '', 1, #same) == same and string.sub(m.settled, #same + 1)
  if settled == 'sent' or settled == 'failed' or settled == 'unknown' then
    m.calling = m.calling or m.called or NOW
    if settled == 'sent' and not RANK[m.reported] then m.reported = 'sent' end
  end
  if m.calling then -- no answer says how many parts it has
    local attempts, ref = tonumber(m.attempt), tonumber(m.pin_ref)
    count_parts(id, attempts, {}, m.provider, ref and ref < attempts and ref or nil)
    m.reported = redis.call('HGET', hash, 'reported') or m.reported
  end
  redis.call('HINCRBY', hash, 'tries', 1)
  local attempt = tonumber(m.attempt or 0)
  local function line(state, look, why)
    note(id, { state = state, provider = m.calling and m.provider or nil, attempt = attempt,
               worker = m.worker, error = 'WorkerLost', why = why or NO_ANSWER, next = look })
  end
  local function again(delay)
    line('retrying', NOW + delay)
    redis.call('HSET', hash, 'not_before', NOW + delay)
    enter(id, 'sending', 'retrying', sooner(NOW + delay, m.expires))
  end
  -- Count lost workers only: in a long outage a message may have hundreds of tries.
  local lost_workers = increase(hash, 'lost_workers', 1)
  local delay, remedy = math.min(2000 * 2 ^ (lost_workers - 1), 600000), remedies[m.provider] or {}
  if m.calling then redis.call('HSET', hash, 'called', math.floor(m.calling)) end
  -- The provider may have it, and the call is not repeated any more.
  local given_up = m.pin and lost_workers >= max_lapses
  if RANK[m.reported] and
      (m.calling or given_up or RANK[m.reported] ~= 3 and RANK[m.reported] ~= 4) then
    line(m.reported, nil)
    enter(id, 'sending', m.reported, report_look(m.reported, m.report))
  elseif m.calling and remedy.repeat_for_ms and lost_workers <= MOST_PINNED and
      pin(id, m, tonumber(m.pin_until) or m.calling + remedy.repeat_for_ms, NOW + delay, remedy.ask_after_ms) then
    again(delay)
  elseif given_up or m.calling and not (m.resend and lost_workers < max_lapses and not m.pin) then
    -- The provider may have the message, so it is not resent: a report, a late answer of the provider, or an operator
    -- settles it.
    line('unknown', nil)
    uncertain(id, 'sending', 'WorkerLost', remedy.ask_after_ms)
  elseif lost_workers >= max_lapses then
    events = events + 1
    event = ARGV[3] .. events
    line('failed', nil, 'gave up: ' .. NO_ANSWER .. ', ' .. lost_workers .. ' times')
    enter(id, 'sending', 'failed', nil, 'WorkerLost')
    event = add_ending(event, id, 'MessageError', 'gave up: ' .. NO_ANSWER)
  else
    again(delay)
  end
  count('lapses', m.calling and m.provider or '')
  lapsed[#lapsed + 1] = id
  lapsed[#lapsed + 1] = redis.call('HGET', hash, 'state')
  lapsed[#lapsed + 1] = event
end

local function end_wait(id)
  local m = read(key('msg', id), 'state', 'attempt', 'provider', 'calling', 'resend', 'reported',
                 'report', 'tries', 'expires', 'worker', 'pin', 'pin_until', 'pin_ref', 'awaited_attempt',
                 'settled', 'token', 'called')
  if m.state or redis.call('EXISTS', key('msg', id)) == 1 then check_record('msg', m) end
  if m.state == 'sending' then
    lapse(id, m)
  elseif LANE[m.state] == 'watch' then
    -- unknown, sent and accepted become final as they are; reports still apply.
    enter(id, m.state, m.state, nil)
    redis.call('ZREM', due_key('ask'), id)
  else
    redis.call('ZREM', due_key('watch'), id)
    if LANE[m.state] == 'send' then look_now(id) end
  end
end

for_each_due(due_key('watch'), NOW, function(id)
  isolated('msg', id, failed, function() end_wait(id) end)
end)

-- The fields of a record that is about to be deleted; a damaged one is deleted, too.
local function last_look(hash, ...)
  local well, fields = pcall(read, hash, ...)
  return well and fields or {}
end

local function forget_message(id)
  local hash = key('msg', id)
  local m = last_look(hash, 'state', 'number', 'idem', 'tags')
  for _, ref in ipairs(references_of(id)) do
    local owner = string.match(redis.call('GET', key('ref', ref)) or '', '^(.*)%.')
    if owner == id then redis.call('DEL', key('ref', ref)) end
  end
  if m.idem then redis.call('DEL', key('idem', m.idem)) end
  if m.number then redis.call('ZREM', key('number', m.number), id) end
  if m.state then redis.call('ZREM', key('state', m.state), id) end
  forget_tags(id, m.tags)
  redis.call('DEL', hash, key('refs', id))
  redis.call('HDEL', key('damaged'), id)
end

for_each_due(key('ends'), NOW, function(id)
  forget_message(id)
  redis.call('ZREM', key('ends'), id)
end)
for state in pairs(FINAL_STATES) do
  for_each_due(state_key(state), NOW - RETENTION, function(id)
    local m = last_look(key('msg', id), 'state')
    if m.state == nil or m.state == state then forget_message(id) end
    redis.call('ZREM', state_key(state), id)
    redis.call('ZREM', key('ends'), id)
  end)
end
for_each_due(key('event_ends'), NOW, function(event)
  local e = last_look(key('event', event), 'state', 'number')
  if e.state then redis.call('ZREM', key('state', e.state), event) end
  if e.number then redis.call('ZREM', key('number', e.number), event) end
  forget_webhook(event)
  redis.call('DEL', key('event', event), key('done', event))
  redis.call('HDEL', key('damaged'), event)
  redis.call('ZREM', key('event_ends'), event)
end)
check_webhooks(out_of_time)
return { lapsed, failed, full and 1 or '' }
