-- A provider is paused for all workers when its calls fail because of the provider, not because of one message.
-- `health:<provider>` has the results of its last RECENT calls, one for each message, as '+<id>' (success) and '-<id>'
-- (failure). It exists only while one of them failed. The provider is paused when the last IN_A_ROW of them failed, or
-- half of RECENT.
local RECENT, IN_A_ROW = 20, 5
-- A pause that begins within so many ms after another one continues its doubling.
local PROBATION = 60000

-- Adds the result of a call. Returns: whether the provider is to be paused.
local function add_result(provider, id, failed)
  local hash = key('health', provider)
  local recent = get(hash, 'recent')
  if not recent and not failed then return false end
  local outcomes, failures, in_a_row = {}, 0, 0
  for outcome in string.gmatch(recent or '', '%S+') do
    if string.sub(outcome, 2) ~= id then outcomes[#outcomes + 1] = outcome end
  end
  outcomes[#outcomes + 1] = (failed and '-' or '+') .. id
  if #outcomes > RECENT then table.remove(outcomes, 1) end
  for _, outcome in ipairs(outcomes) do
    local bad = string.sub(outcome, 1, 1) == '-'
    failures = failures + (bad and 1 or 0)
    in_a_row = bad and in_a_row + 1 or 0
  end
  if failures == 0 then
    unset(hash, 'recent')
    return false
  end
  set(hash, 'recent', table.concat(outcomes, ' '))
  expire(hash, 86400)
  return in_a_row >= IN_A_ROW or (#outcomes == RECENT and failures * 2 >= RECENT)
end

-- Applies the result of a call to its provider's health: pauses it, or ends its pause.
-- o: the outcome, see settle.lua
-- id: the message; began: when the call began (ms)
local function note_health(o, id, began)
  if not o.provider or not (o.provider_works or o.pause_ms) then return end
  local pause, health = key('pause', o.provider), key('health', o.provider)
  local p, h = read(pause, 'until', 'since', 'times', 'suspect', 'by'), read(health, 'since', 'times')
  if p.by then return end -- an operator's pause ends by itself, or by an operator
  -- Ignore a call that began before the last pause began or ended.
  local since = math.max(tonumber(p.since or 0), tonumber(h.since or 0))
  if began <= since then return end
  if o.provider_works then
    if p['until'] then
      delete_hash(pause)
      redis.call('SREM', key('pauses'), o.provider)
      set(health, 'since', MOMENT, 'times', p.suspect and p.times or 0)
      unset(health, 'recent')
      expire(health, 86400)
    else
      add_result(o.provider, id, false)
    end
    return
  end
  -- During a pause only probes are called: a failing probe prolongs it.
  local waits = p['until']
  if o.pause_if_others_failed and not waits and not add_result(o.provider, id, true) then return end
  local times = tonumber(p.times or 0)
  if o.pause_if_others_failed and not waits and NOW - tonumber(h.since or 0) < PROBATION then
    times = tonumber(h.times or 0)
  end
  local doubled = math.min(o.pause_ms * 2 ^ times, math.max(o.pause_ms, o.pause_max_ms))
  set(pause, 'until', NOW + math.max(doubled, o.requested_pause_ms or 0), 'since', MOMENT, 'times', times + 1,
      'error', o.error or '')
  unset(pause, 'probe', 'probe_until', 'suspect')
  if o.pause_if_others_failed then set(pause, 'suspect', 1) end
  expire(pause, 2 * 86400)
  redis.call('SADD', key('pauses'), o.provider)
  unset(health, 'recent')
  count('pauses', o.provider, o.error or '')
end

-- When a provider may be called; nil: now. After a pause, one call at a time is allowed as a probe.
local function paused_until(provider, token, lease)
  local hash = key('pause', provider)
  local p = read(hash, 'until', 'probe', 'probe_until', 'by', 'ends', 'auto_until')
  if not p['until'] then return nil end
  if p.by then
    local ends = tonumber(p.ends) or math.huge
    if ends > NOW then return math.min(ends, NOW + MOST_WAIT) end
    -- Upkeep is about to end it.
    local asked_for = tonumber(p.auto_until or 0)
    return asked_for > NOW and asked_for or nil
  end
  local ends, probing = tonumber(p['until']), tonumber(p.probe_until or 0)
  if NOW < ends then return ends end
  if NOW < probing and p.probe ~= token then return NOW + 1000 end
  set(hash, 'probe', token, 'probe_until', NOW + lease)
  return nil
end

-- The next time in the wait queues of paused providers: a millisecond after the one before, so that messages do not all
-- become due at once.
-- names: of the providers, with a space between them; wait_queue: 'single' or 'bulk'; least: a time
-- Returns: the provider whose wait queue comes first, and the time; nil if one of the providers is not paused
local function next_place(names, wait_queue, least)
  local best, at
  for name in string.gmatch(names, '%S+') do
    local p = read(key('pause', name), 'until', 'by', wait_queue)
    if not p['until'] then return nil end
    -- During an operator's pause routers are asked again now and then.
    local ends = p.by and math.min(p['until'], NOW + MOST_WAIT) or p['until']
    local place = math.max(ends, least, tonumber(p[wait_queue] or 0) + 1)
    if not at or place < at then best, at = name, place end
  end
  return best, at
end

-- A waiting message was rerouted to a healthy provider: wake the others.
local function wake_others(names, provider)
  if string.find(' ' .. names .. ' ', ' ' .. provider .. ' ', 1, true) then return end
  if get(key('pause', provider), 'until') then return end
  for name in string.gmatch(names, '%S+') do
    local pause = key('pause', name)
    if get(pause, 'until') then set(pause, 'rerouted', NOW) end
  end
end

-- Records for 15 minutes that no provider was found for a message (messages are retried within ten minutes). It is
-- removed when an attempt begins.
local LATELY, MOST_UNROUTED = 900000, 10000
local unrouted_exists
local function has_unrouted()
  if unrouted_exists == nil then unrouted_exists = redis.call('EXISTS', key('unrouted')) == 1 end
  return unrouted_exists
end
local function note_unrouted(id, error_class, why)
  local ids, cause = key('unrouted'), key('unrouted_why')
  unrouted_exists = true
  redis.call('ZADD', ids, NOW, id)
  redis.call('ZREMRANGEBYSCORE', ids, '-inf', NOW - LATELY)
  redis.call('ZREMRANGEBYRANK', ids, 0, -MOST_UNROUTED - 1)
  redis.call('HSET', cause, 'error', error_class, 'why', why or '')
  redis.call('PEXPIRE', ids, LATELY)
  redis.call('PEXPIRE', cause, LATELY)
end

-- Begins an attempt at a provider. It is stored before the provider is called: until the attempt is settled, `calling` is
-- the time since which the provider may have the message.
local function begin(id, token, provider, lease)
  local hash = key('msg', id)
  local m = read(hash, 'worker', 'waiting_for', 'msgid', 'attempt', 'tags')
  if paused_scope(m.tags) then return { 'paused', 1000 } end -- upkeep holds it when it is due again
  local ends = paused_until(provider, token, lease)
  if ends then return { 'paused', math.max(0, ends - NOW) } end
  local former = m.msgid and own_reference(id) -- of a sending before it was requeued
  if former then note_reference(id, former) end
  if m.waiting_for then
    wake_others(m.waiting_for, provider)
    unset(hash, 'waiting_for', 'wait_queue', 'checked_at')
  end
  if has_unrouted() then redis.call('ZREM', key('unrouted'), id) end
  -- Do first what can fail: a damaged message must not look as if its provider had been called.
  local attempt = tonumber(m.attempt or 0) + 1
  note(id, { state = 'sending', provider = provider, attempt = attempt, worker = m.worker })
  increase(hash, 'attempt', 1)
  set(hash, 'provider', provider, 'calling', MOMENT, 'awaited_attempt', attempt)
  index_add(due_key('watch'), NOW + lease, id)
  count('attempts', provider)
  return { 'go', attempt }
end
