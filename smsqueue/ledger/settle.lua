-- Records how an attempt ended, and begins the next one if another provider follows. Repeating it with the same token
-- returns the first answer; a late outcome of the same attempt still settles an unknown message.
-- ARGV: id, token, attempt, outcome (JSON: the fields of AttemptOutcome in script_values.py; of the
--       provider's ids the first 255 count)
-- Returns: state, next look, 'go' | 'paused' | '', attempt or ms until the pause ends, events to publish...
local id, token, attempt = ARGV[1], ARGV[2], tonumber(ARGV[3])
local o = cjson.decode(ARGV[4])
applied = 0 -- another item of the group may have applied reports
local hash = key('msg', id)
local m = read(hash, 'state', 'token', 'attempt', 'reported', 'report', 'resend', 'expires',
               'calling', 'settled', 'since', 'provider', 'pin_until', 'pin_ref', 'resent')
if not m.state then return { 'gone', '', '', '' } end

local attempts = tonumber(m.attempt or 0)
local mark = token .. '.' .. attempt .. '.' .. o.verdict .. (o.next and '.next' or '')
if m.settled == mark then
  if not o.next or m.state ~= 'sending' then return { m.state, '', '', '' } end
  if attempts > attempt then return { m.state, '', 'go', attempts } end
  return { m.state, '', 'paused', 0 }
end

-- A failover took the beginning of this attempt back, as no other attempt has a higher number. The provider was called
-- all the same: begin it again under this claim, so that nobody else makes it.
local taken_back = attempts < attempt and (CLAIMABLE[m.state] or m.state == 'sending')
if taken_back and (o.verdict == 'sent' or o.verdict == 'unknown') then
  note(id, { state = 'sending', provider = o.provider, attempt = attempt, why = 'begun before a failover' })
  enter(id, m.state, 'sending', NOW)
  set(hash, 'token', token, 'attempt', attempt, 'provider', o.provider, 'calling', MOMENT)
  count('attempts', o.provider or '')
  m.state, m.token, m.provider, m.calling, attempts = 'sending', token, o.provider, MOMENT, attempt
end

-- Record the provider's health, even if another worker has the message now.
local calling, pause = tonumber(m.calling or 0), o.provider and key('pause', o.provider)
note_health(o, id, calling)
if pause and not o.provider_works and not o.pause_ms and get(pause, 'probe') == token then
  unset(pause, 'probe', 'probe_until') -- the probe gave no result: allow another one
end
local ends = pause and (o.provider_works or o.pause_ms or o.other_provider_ms) and not get(pause, 'by') and
    get(pause, 'until')
if ends and o.delay_ms then
  local left = math.max(0, ends - NOW)
  -- Queue the message that failed behind the others, so that it is not the next probe.
  o.delay_ms = math.max(o.delay_ms, left + (o.pause_ms and math.floor(200 + 0.2 * left) or 0))
  -- The route skips a paused provider, so the next attempt is at the other one.
  if o.other_provider_ms then o.delay_ms = math.min(o.delay_ms, o.other_provider_ms) end
end

local events = {}
local ours = m.token == token and attempts == attempt
-- The attempt that this one repeated with its key, so both have one reference; nil: none.
local repeated_attempt = tonumber(m.pin_ref)
if repeated_attempt and repeated_attempt >= attempt then repeated_attempt = nil end
if o.verdict == 'sent' or o.verdict == 'unknown' then
  local msgids = {}
  for i = 1, math.min(#(o.msgids or {}), MOST_PARTS) do msgids[i] = o.msgids[i] end
  count_parts(id, attempt, msgids, o.provider, repeated_attempt)
  for _, pid in ipairs(msgids) do
    add_reference(id, attempt, o.provider, pid, events)
  end
  count_parts(id, attempt, msgids, o.provider, repeated_attempt)
elseif ours then
  count_parts(id, attempt, {}, o.provider, repeated_attempt)
end

-- Only the worker that made the call may settle a message, and an outcome other than 'sent' counts only if it is about
-- the message's last call. A message is unknown because of an earlier call if none was made under this claim, or if this
-- attempt repeated that call.
local counts = m.state == 'sending' or m.state == 'unknown' and m.calling and not repeated_attempt
if not ours or o.verdict ~= 'sent' and not counts then
  note(id, { state = m.state, why = 'late outcome: ' .. o.verdict, provider = o.provider,
             attempt = attempt, error = o.error, code = o.code })
  return with_list({ m.state, '', '', '' }, events)
end
-- Once for each attempt: if the next provider is paused, the attempt is settled a second time.
local same = token .. '.' .. attempt .. '.'
if (o.error or o.policy) and string.sub(m.settled or '', 1, #same) ~= same then
  if o.policy then
    count('policy', o.policy)
  else
    count('errors', o.provider or '', o.error, o.verdict)
    if not o.provider then note_unrouted(id, o.error, o.why) end
  end
end
if o.policy and has_unrouted() then redis.call('ZREM', key('unrouted'), id) end -- it was routed
unset(hash, 'waiting_for', 'wait_queue', 'checked_at')
if calling > 0 then set(hash, 'called', math.floor(calling)) end
local reported, state = get(hash, 'reported'), get(hash, 'state')

local function line(to, look)
  note(id, { state = to, why = o.why, provider = o.provider, attempt = attempt, error = o.error,
             code = o.code, next = look })
end
local function tries() if o.counted then increase(hash, 'tries', 1) end end
local function wait(to, look)
  set(hash, 'not_before', look)
  enter(id, state, to, sooner(look, m.expires))
end

-- Pins a message whose answer was lost to its provider, so that the same call is repeated. False: the provider does not
-- de-duplicate, or not any more by then.
local function pin_to_repeat()
  if o.verdict ~= 'unknown' or not o.repeat_for_ms or o.no_resend then return false end
  local ends = tonumber(m.pin_until) or calling + o.repeat_for_ms
  return pin(id, m, ends, NOW + (o.delay_ms or 0), o.ask_after_ms)
end
-- May it be sent again although its provider may have it? Its sender chose that.
local function may_resend()
  return o.verdict == 'unknown' and m.resend and not o.no_resend and tonumber(m.resent or 0) < (o.max_resends or 25)
end

if o.verdict == 'sent' then
  set(hash, 'msgid', o.msgid, 'sent_at', NOW)
  observe('sent', o.provider, math.max(0, NOW - (m.since or accepted_at(id))))
  if o.meta then set(hash, 'meta', o.meta) end
  if o.sent_event then
    events[#events + 1] = add_event(o.event, 'sent', id, o.sent_event)
  end
  line('sent', nil)
  local best = 'sent'
  if (RANK[reported] or 0) > 1 then best = reported end
  -- A report may have advanced the message already; its state never goes back.
  if RANK[best] > rank_of(state, reported) or not RANK[state] then
    enter(id, state, best, report_look(best, m.report and not o.no_reports))
    if best == 'delivered' then
      observe('delivered', o.provider, 0)
      unset(hash, 'sent_at')
    end
  end
elseif RANK[reported] and not ((o.verdict == 'retry' or o.verdict == 'wait') and
    (reported == 'expired' or reported == 'undelivered')) then
  -- The network has it, whatever the outcome of the attempt.
  line(reported, nil)
  enter(id, state, reported, report_look(reported, m.report))
elseif o.verdict == 'retry' and o.next then
  tries()
  if state == 'unknown' then
    enter(id, state, 'sending', NOW + o.next.lease_ms)
    unset(hash, 'pin_ref')
  end
  note(id, { state = 'elsewhere', why = o.why, provider = o.provider, attempt = attempt,
             error = o.error, code = o.code })
  unset(hash, 'calling', 'awaited_attempt')
  local r = read(hash, 'number', 'former_number', 'data')
  if has_opted_out(r, ' ' .. table.concat(o.next.exempt, ' ') .. ' ') then -- during the call
    events[#events + 1] = refuse_opted_out(id, 'sending', o.event)
    unset(hash, 'worker')
    set(hash, 'settled', mark)
    return with_list({ 'failed', '', '', '' }, events)
  end
  local go = begin(id, token, o.next.provider, o.next.lease_ms)
  set(hash, 'settled', mark)
  if go[1] == 'go' then return with_list({ 'sending', '', 'go', go[2] }, events) end
  -- No provider was called: the worker keeps the message and tries the next provider.
  return with_list({ 'sending', '', 'paused', go[2] }, events)
elseif pin_to_repeat() then
  tries()
  local look = NOW + (o.delay_ms or 0)
  o.why = 'its answer was lost: the same again'
  line('retrying', look)
  wait('retrying', look)
elseif o.verdict == 'retry' or may_resend() then
  tries()
  if o.verdict == 'unknown' then increase(hash, 'resent', 1) end
  local look = NOW + (o.delay_ms or 0)
  line('retrying', look)
  wait('retrying', look)
elseif o.verdict == 'wait' and o.not_before_ms then
  local look = math.max(o.not_before_ms, NOW + 1000)
  set(hash, 'since', look)
  line('scheduled', look)
  wait('scheduled', look)
elseif o.verdict == 'wait' then
  -- Nothing was sent under this claim: return to the state before.
  local back, look = attempts > 0 and 'retrying' or 'queued', NOW + (o.delay_ms or 0)
  local name, place = next_place(o.waiting_for or '', o.wait_queue, look)
  if name then
    look = place
    set(key('pause', name), o.wait_queue, look)
    set(hash, 'waiting_for', o.waiting_for, 'wait_queue', o.wait_queue, 'checked_at', NOW)
  end
  if o.why then line(back, look) end
  enter(id, state, back, sooner(look, m.expires))
  -- It has been queued since it was accepted, not since this claim.
  if back == 'queued' then
    index_add(state_key(back), m.since or accepted_at(id), id)
  end
elseif o.verdict == 'failed' then
  if o.opted_out then note_opt_out(hash, o.provider, o.code) end
  line('failed', nil)
  local why = 'failed: ' .. (o.error or 'no reason given')
  events[#events + 1] =
    add_ending(o.event, id, 'MessageError', o.code and why .. ' ' .. o.code or why, o.code)
  enter(id, state, 'failed', nil, o.error)
else
  line('unknown', nil)
  uncertain(id, state, o.error, o.ask_after_ms)
end
-- Only now: if anything before fails, the settle is repeated, and until then the provider may have the message.
set(hash, 'settled', mark)
unset(hash, 'calling', 'awaited_attempt')
if o.verdict == 'sent' or o.verdict == 'failed' or (state == 'unknown' and o.verdict == 'retry') then
  unset(hash, 'pin', 'pin_until', 'pin_ref')
end
local now = get(hash, 'state')
if now ~= 'sending' then unset(hash, 'worker') end -- it is in the timeline
-- The provider is no longer asked about it, and `settled` has the token.
if o.verdict == 'sent' then
  unset(hash, 'called', 'token')
  drop_own_reference(id)
end
return with_list({ now, next_look(id, now) or '', '', '' }, events)
