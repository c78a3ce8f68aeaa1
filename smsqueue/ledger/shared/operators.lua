-- What operators do to one record, by its id or as one of many that match. Each checks the record before it changes
-- anything: a damaged one must not be changed halfway.
local function check_whole(kind, id)
  local cause = cause_of(kind, id)
  if cause then error(cause, 0) end
end

-- Cancels a message that waits.
-- event: id for the ending; bulk: the ending is one of many, and upkeep publishes it
-- Returns: the state before, or 'gone'; the event to publish, or ''; the state now, nil if it did not change
local function cancel_message(id, event, bulk)
  local state = get(key('msg', id), 'state')
  if not CLAIMABLE[state] then return state or 'gone', '' end
  -- A provider may have it already.
  if get(key('msg', id), 'pin') then return 'sending', '' end
  check_whole('msg', id)
  enter(id, state, 'cancelled', nil)
  note(id, { state = 'cancelled', why = 'by an operator', by = operator_name() })
  return state, add_ending(event, id, 'MessageError', 'cancelled', nil, bulk), 'cancelled'
end

-- Sends a message again: a new generation, which is valid for as long as the last one was. A message that was
-- cancelled before its time is scheduled for that time again.
-- validity: ms, or nil: as before; bulk: one of many; states: those in which it may be, as keys
-- Returns: the state before, or 'gone'; whether to publish it (1 or 0); the state now, nil if it did not change
local function requeue_message(id, validity, bulk, states)
  local hash = key('msg', id)
  local m = read(hash, 'state', 'attempt', 'expires', 'since', 'not_before')
  local state, attempts, since = m.state, tonumber(m.attempt or 0), tonumber(m.since)
  if not states[state] then return state or 'gone', 0 end
  check_whole('msg', id)
  validity = validity or m.expires and m.expires - (since or accepted_at(id))
  local later = since and since > NOW and tonumber(m.not_before) == since and since
  local expires = validity and (later or NOW) + validity
  -- Failures that are reported of earlier attempts no longer count.
  set(hash, 'first_attempt', attempts + 1, 'since', later or NOW)
  unset(hash, 'token', 'tries', 'reported', 'not_before', 'expires', 'settled', 'calling', 'awaited_attempt', 'pin',
        'pin_until', 'pin_ref', 'ask_after_ms', 'times_asked', 'ask_now', 'waiting_for', 'wait_queue', 'checked_at',
        'resent', 'lost_workers', 'sent_at')
  if bulk then set(hash, 'bulk', 1) end
  if expires then set(hash, 'expires', expires) end
  local publish, now = 0, 'queued'
  if later then
    now = 'scheduled'
    set(hash, 'not_before', later)
    enter(id, state, now, sooner(later, expires))
  else
    publish = queue_up(id, state, expires, bulk)
  end
  note(id, { state = now, why = 'requeued by an operator', by = operator_name(), next = later or nil })
  count('requeued')
  return state, publish, now
end

-- Settles an unknown message as the operator says.
-- Returns: the state before, or 'gone'; the state now, nil if it did not change
local function settle_by_hand(id, to)
  local hash = key('msg', id)
  local m = read(hash, 'state', 'report')
  if m.state ~= 'unknown' then return m.state or 'gone' end
  check_whole('msg', id)
  enter(id, 'unknown', to, report_look(to, m.report))
  set(hash, 'reported', to)
  note(id, { state = to, why = 'settled by an operator', by = operator_name() })
  return 'unknown', to
end

-- Runs the handlers of an event that is over (dead, unheard, done) again.
-- everything: also those that have succeeded; bulk: one of many, and upkeep publishes it
-- Returns: the state before, or 'gone'; the event to publish, or ''; the state now, nil if it did not change
local ENDED_EVENTS = { dead = true, unheard = true, done = true }
local function replay_event(event, everything, bulk)
  local hash = key('event', event)
  local state = get(hash, 'state')
  if not ENDED_EVENTS[state] then return state or 'gone', '' end
  check_whole('event', event)
  index_remove(state_key(state), event)
  index_remove(key('event_ends'), event)
  unset(hash, 'tries', 'why')
  hold_webhook_again(event)
  if everything then redis.call('DEL', key('done', event)) end
  return state, hand_over(event, bulk), 'waiting'
end
