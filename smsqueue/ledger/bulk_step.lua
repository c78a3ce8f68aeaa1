-- One step of an operation on many records: an operator named them, or filters that they match. It takes a millisecond
-- or two; the caller repeats it from the record after the last one that was examined.
-- ARGV: what to do, and to which records (JSON: the fields of BulkRequest in script_values.py); ids, if the operator
--       named them; the action (see shared/audit_log.lua)
-- Returns: how many entries or ids were examined; score and id of the last entry; whether it was the last of the index
--          (1 or ''); records that match { id, state before or 'gone', state now or '' if it did not change, ... };
--          records that failed { id, cause, whether it was set aside as damaged (1 or 0), ... }; messages to publish
--          { ... }; events to publish { ... }
local o = cjson.decode(ARGV[1])
local kind, states, failed = o.operation == 'replay' and 'event' or 'msg', {}, {}
-- Thousands of steps follow each other, and a message that is being sent meanwhile needs a dozen commands: each of them
-- may have to wait for a step. Writing takes some time after this. Some records are examined whatever the clock says,
-- which runs on while the machine does something else.
local STEP_MICROSECONDS, SOME = 1000, 4 * FEW
local results, messages, events, out_of_time = {}, {}, {}, stopwatch(STEP_MICROSECONDS)
for _, state in ipairs(o.states) do states[state] = true end

-- Like _trouble() in records.py: error and code that a record shows.
local FAILED_REPORTS = { undelivered = true, expired = true }
local OVERCOME = { sent = true, accepted = true, delivered = true }
local function error_and_code(m)
  local lines = timeline_of(m.timeline or '')
  if not lines then error('timeline is not a JSON list of lines', 0) end
  local requeued, report, failure = 1, nil, nil
  for i, line in ipairs(lines) do
    if line.why == 'requeued by an operator' then requeued = i end
  end
  for i, line in ipairs(lines) do
    local is_report = line.why == 'report' or line.why == 'report of a part'
    if is_report and line.state == m.state and i >= requeued then report = line end
    if line.error ~= nil or is_report and FAILED_REPORTS[line.state] then failure = line end
  end
  local shown = report or not OVERCOME[m.state] and failure or {}
  return shown.error, shown.code
end

-- The provider of an event, whose data says it; one of a webhook that is counted has it in a field, too.
local function provider_of_event(e)
  local counted = e.held or e.kept
  if counted then return string.match(counted, '^(.-)|') end
  local well, data = pcall(cjson.decode, e.data or '')
  return well and type(data) == 'table' and data.provider or nil
end

local function has_all_tags(m)
  for _, tag in ipairs(o.tags or {}) do
    if not has_tag(m.tags, tag) then return false end
  end
  return true
end

-- Does a record match the filters? score: in the index by its state, if that is the one that is walked
local function matches(id, score)
  local hash = key(kind, id)
  local m = read(hash, 'state', 'provider', 'tags', 'number', 'timeline', 'held', 'kept', 'data')
  if not m.state then
    if redis.call('EXISTS', hash) == 1 then error('state is missing', 0) end
    return false -- it was deleted, or is a record of the other kind
  end
  if not states[m.state] then
    if not is_one_of(m.state, RECORDS[kind].states) then error('state is not a known one', 0) end
    return false
  end
  if o.index ~= 'state:' .. m.state then score = index_score(state_key(m.state), id) end
  score = tonumber(score)
  if not score or o.since and score < o.since or score > o.before then return false end
  if o.provider and o.provider ~= (kind == 'msg' and m.provider or kind == 'event' and provider_of_event(m)) then
    return false
  end
  if o.numbers and not is_one_of(m.number, o.numbers) or not has_all_tags(m) then return false end
  if not o.error then return true end
  local class, code = error_and_code(m)
  return class == o.error or code ~= nil and tostring(code) == o.error
end

-- Each operation returns the state before, the state now if it changed, and what to publish: a message, an event.
local OPERATIONS = {}
function OPERATIONS.cancel(id)
  local before, event, now = cancel_message(id, o.events .. #results, o.bulk)
  return before, now, now and #messages < o.closings and closing() or 0, event
end
function OPERATIONS.requeue(id)
  local before, publish, now = requeue_message(id, o.validity_ms, o.bulk, states)
  return before, now, publish
end
function OPERATIONS.settle(id)
  local before, now = settle_by_hand(id, o.to)
  return before, now, now and #messages < o.closings and closing() or 0
end
function OPERATIONS.replay(id)
  local before, event, now = replay_event(id, true, o.bulk)
  return before, now, 0, event
end

-- The state before, and that after the operation, which is not done.
local NEW_STATE = { cancel = 'cancelled', requeue = 'queued', settle = o.to, replay = 'waiting' }
local function predict(id)
  local m = read(key(kind, id), 'state', 'pin')
  if not m.state then return 'gone' end
  if o.operation == 'cancel' and CLAIMABLE[m.state] and m.pin then return 'sending' end
  if not is_one_of(m.state, o.possible) then return m.state end
  check_whole(kind, id)
  return m.state, NEW_STATE[o.operation]
end

local function operate(id, score)
  if o.index and not matches(id, score) then return end
  local before, now, publish, event
  if o.dry then before, now = predict(id) else before, now, publish, event = OPERATIONS[o.operation](id) end
  results[#results + 1] = id
  results[#results + 1] = before
  results[#results + 1] = now or ''
  if now then audit_count('done', 1, id) else audit_count('refused', 1) end
  if publish == 1 then messages[#messages + 1] = id end
  if event and event ~= '' then events[#events + 1] = event end
end

local entries, at_end = {}, ''
if o.index then
  entries = page_of_index(key(o.index), o.score, o.id, o.least or -math.huge, o.size)
else
  for i = 2, #ARGV do
    entries[#entries + 1] = ARGV[i]
    entries[#entries + 1] = ''
  end
end
audit_count('done', 0) -- there may be none here
local examined = 0
for i = 1, #entries, 2 do
  if examined >= SOME and out_of_time() or o.limit and #results / 3 >= o.limit then break end
  examined = examined + 1
  local id, score = entries[i], entries[i + 1]
  if o.dry then
    local well, message = pcall(operate, id, score)
    if not well then
      if is_transient(tostring(message)) then error(message, 0) end
      failed[#failed + 1] = id
      failed[#failed + 1] = cause_of(kind, id) or tostring(message)
      failed[#failed + 1] = 0
    end
  else
    local well = isolated(kind, id, failed, function() operate(id, score) end)
    if not well then audit_count('refused', 1) end
  end
end
if #entries < 2 * o.size and examined == #entries / 2 then at_end = 1 end
return { examined, entries[2 * examined] or '', entries[2 * examined - 1] or '', at_end, results, failed, messages,
         events }
