-- Records a delivery report: its effect on its message, and the event for onStatus.
-- ARGV: event, provider, pids (JSON list of the provider's ids), id and attempt (of our own reference, or ''), state
--       (or ''), code, repetition (hash that repeated webhooks share, or ''), data, parts of the message's text if
--       the report is about one of them (else ''), repetition with the former hash key (hash or '')
-- Returns: 'full', why it is refused ('memory' | 'quota')
--          | 'matched' | 'parked' | 'repeat', id of a message to publish so that its task ends (or ''), id of the
--          message (or ''), the state that it moved to (or ''), whether it is bulk (1 or ''), events to publish...
local event, provider, pids = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local id, attempt, state, code = ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7]
local guess = tonumber(ARGV[10])
local repetitions = {}
for _, i in ipairs({ 8, 11 }) do
  if ARGV[i] ~= '' then repetitions[#repetitions + 1] = ARGV[i] end
end
-- Was it recorded before, of a message (nil: of an unmatched one, or by an older version)?
local function is_repeated(message)
  for _, repetition in ipairs(repetitions) do
    if message and is_marked(message, repetition)
        or not message and redis.call('EXISTS', key('seen', repetition)) == 1 then
      count('reports', provider, state, 'repeated')
      return true
    end
  end
  return false
end
-- Last: if anything fails before, the provider has to repeat the report.
local function note_seen(message)
  if message and add_marks(message, repetitions) then return end
  for _, repetition in ipairs(repetitions) do
    -- A small number takes no memory of its own in Redis.
    call_last('SET', key('seen', repetition), 1, 'PX', REPORT_WAIT)
  end
end
if is_repeated(nil) then return { 'repeat', '', '', '', '' } end

local named, attempts = {}, nil
if attempt then isolated('msg', id, {}, function() named = read(key('msg', id), 'attempt', 'provider') end) end
attempts = named.attempt and tonumber(named.attempt)
-- The last attempt was at one provider: a report of another one is not about it.
local by_reference = attempts and attempt >= 1 and
    (attempt < attempts or (attempt == attempts and named.provider == provider))
if not by_reference then
  id, attempt = nil, nil
  for _, pid in ipairs(pids) do
    local ref = redis.call('GET', key('ref', provider .. ':' .. pid))
    if ref then
      id, attempt = string.match(ref, '^(.*)%.(%d+)$')
      attempt = tonumber(attempt)
    end
  end
end

if id and is_repeated(id) then return { 'repeat', '', '', '', '' } end
-- A report that changes an accepted message has its memory reserved. Any other one may be a forgery.
local bytes, marks = #ARGV[9] + WEBHOOK_NEW, MARKS
if not id then
  for _, pid in ipairs(pids) do marks = marks + PARKED_REPORT + 2 * #pid end
end
local well, news = pcall(function() return id and is_news(id, attempt, state, pids, guess) end)
local refusal = well and not news and refusal_of_webhook(provider, bytes + marks)
if refusal then
  count('webhooks_refused', provider, refusal)
  return { 'full', refusal }
end

if id then
  local _, before = pcall(get, key('msg', id), 'state')
  local moved, failed = false, {}
  isolated('msg', id, failed, function()
    moved = state ~= '' and apply_report(id, attempt, state, provider, code, pids, guess)
  end)
  if failed[3] == 0 then error(failed[2], 0) end
  local events = { add_event(event, 'status', id, ARGV[9]) }
  hold_webhook(event, provider, bytes, marks)
  if by_reference and #failed == 0 then
    for _, pid in ipairs(pids) do
      -- Deleting a message takes longer the more ids it has.
      if redis.call('SCARD', key('refs', id)) < 2 * MOST_PARTS then
        add_reference(id, attempt, provider, pid, events)
      end
    end
  end
  count('reports', provider, state, 'matched')
  note_seen(#failed == 0 and id)
  return with_list({ 'matched', moved and not RANK[before] and closing() == 1 and id or '', id,
                     moved and get(key('msg', id), 'state') or '', is_bulk_message(id) and 1 or '' }, events)
end

-- Its send may not be settled yet: the report waits for that, then its handlers run without a message.
put_event(event, 'status', nil, ARGV[9])
hold_webhook(event, provider, bytes + marks, marks)
put_off(event, 'parked', NOW + (#pids > 0 and PARK_WAIT or 0))
for _, pid in ipairs(pids) do
  park(provider .. ':' .. pid, event, state, code, guess)
end
count('reports', provider, state, 'parked')
note_seen()
return { 'parked', '', '', '', '' }
