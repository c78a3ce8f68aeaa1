-- Shared by every script of the ledger. The header before this text sets the times, in
-- milliseconds: GRACE, RETENTION, REPORT_WAIT, PARK_WAIT, HOOK_LEASE; and the lengths of the
-- broker's queues above which no trigger is added: WATERMARK, BULK_WATERMARK.
-- Time is Redis's own, so that workers' clocks do not matter.
local NS, SEND_QUEUE, HOOK_QUEUE = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- To the microsecond, for what may happen within the same millisecond.
local MOMENT = string.format('%.3f', clock[1] * 1000 + clock[2] / 1000)

local TIMELINE_MAX = 60
local RANK = { sent = 1, accepted = 2, expired = 3, undelivered = 4, delivered = 5 }
local CLAIMABLE = { queued = true, scheduled = true, retrying = true }
local LANE = { queued = 'send', scheduled = 'send', retrying = 'send',
               sending = 'watch', unknown = 'watch', sent = 'watch', accepted = 'watch' }

-- States that are news worth counting: the end of a message, or of what is known of it.
local ENDS = { delivered = true, undelivered = true, expired = true, failed = true,
               cancelled = true, unknown = true }
-- Upper ends of the histograms' buckets, in seconds.
local BUCKETS = { 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200 }

local function key(...) return table.concat({ NS, ... }, ':') end
local function due_key(lane) return key('due', lane) end

-- A table of the named fields; a missing one is nil.
local function read(hash, ...)
  local names, values = { ... }, redis.call('HMGET', hash, ...)
  local found = {}
  for i, name in ipairs(names) do found[name] = values[i] or nil end
  return found
end

-- Counters live here, so that they are right whichever process is asked for them.
local function count(...)
  redis.call('HINCRBY', key('counts'), table.concat({ ... }, '|'), 1)
end

-- Counts a duration (ms) in a histogram.
local function observe(what, provider, took)
  local bucket = '+Inf'
  for _, seconds in ipairs(BUCKETS) do
    if took <= seconds * 1000 then bucket = seconds break end
  end
  count('took', what, provider, bucket)
  redis.call('HINCRBY', key('counts'), table.concat({ 'took_ms', what, provider }, '|'), took)
end

-- Adds a line to a message's timeline. A line that only repeats the last one is counted on it;
-- of a long timeline the first line and the newest are kept.
local function note(id, line)
  local hash = key('msg', id)
  local text = redis.call('HGET', hash, 'timeline')
  local lines = text and cjson.decode(text) or {}
  local last = lines[#lines]
  if last and last.state == line.state and last.provider == line.provider and last.why == line.why
      and last.error == line.error and last.code == line.code and last.attempt == line.attempt then
    last.times = (last.times or 1) + 1
    last.last = NOW
    last.next = line.next
  else
    line.at = NOW
    lines[#lines + 1] = line
    if #lines > TIMELINE_MAX then
      local gone = table.remove(lines, 2)
      lines[2].dropped = (gone.dropped or 0) + 1
    end
  end
  redis.call('HSET', hash, 'timeline', cjson.encode(lines))
end

-- When a message was taken in: its timeline's first line is never dropped.
local function accepted_at(id)
  return tonumber(string.match(redis.call('HGET', key('msg', id), 'timeline'), '"at":(%d+)'))
end

-- Moves a message into a state: the index by state, the due set of its lane (`look` is when
-- somebody must next look; nil: it is final), and the day on which it is forgotten. `error` and
-- `provider` (if not that of the last attempt) are what its end is counted under.
local function enter(id, from, to, look, error, provider)
  if from then
    if LANE[from] then redis.call('ZREM', due_key(LANE[from]), id) end
    redis.call('ZREM', key('state', from), id)
    if from == 'unknown' then redis.call('ZREM', due_key('ask'), id) end
  end
  redis.call('HSET', key('msg', id), 'state', to)
  redis.call('ZADD', key('state', to), NOW, id)
  if ENDS[to] and from ~= to then
    provider = provider or redis.call('HGET', key('msg', id), 'provider') or ''
    count('ended', to, provider, error or '')
  end
  if look then
    redis.call('ZADD', due_key(LANE[to]), look, id)
    redis.call('ZREM', key('ends'), id)
  else
    redis.call('ZADD', key('ends'), NOW + RETENTION, id)
  end
end

-- When somebody must look at a message that waits: its time, or the end of its validity.
local function sooner(at, expires)
  expires = tonumber(expires)
  if expires and expires < at then return expires end
  return at
end

-- Nobody knows what became of a message. `ask` (ms): its provider can be asked, after so long.
local function uncertain(id, from, error, ask)
  enter(id, from, 'unknown', NOW + REPORT_WAIT, error)
  redis.call('HDEL', key('msg', id), 'pin', 'pin_until')
  if ask then redis.call('ZADD', due_key('ask'), NOW + ask, id) end
end

-- Binds a message, which a provider may have, to that provider: it sends once for the same key,
-- and so may be called again until `ends`. False: it may not, any more.
local function pin(id, m, ends, look, ask)
  if look >= ends then return false end
  redis.call('HSET', key('msg', id), 'pin', m.provider, 'pin_until', ends,
             'pin_ref', m.pin_ref or m.attempt)
  if ask then redis.call('HSET', key('msg', id), 'ask', ask) end
  return true
end

-- sent and accepted wait for reports, if some were asked for; the rest of RANK is final.
local function report_look(state, report)
  if report and (state == 'sent' or state == 'accepted') then return NOW + REPORT_WAIT end
  return nil
end

-- Triggers in a broker queue ('send' or 'hook'), with those that upkeep is about to publish.
local function length(queue)
  local here = redis.call('LLEN', queue == 'hook' and HOOK_QUEUE or SEND_QUEUE)
  return math.max(here, tonumber(redis.call('GET', key('filled', queue)) or 0))
end

-- Has a broker queue room for another trigger? What finds none stays due: upkeep publishes it.
local function room(queue, most) return length(queue) < most end

-- Has a message whose task did not see its end to be published once more, for the monitors? It
-- is nothing that anybody waits for, so not while the queue is long.
local function closing() return room('send', WATERMARK) and 1 or 0 end

-- A trigger is published. When that was stays with its record (`out`), so that it is not doubled
-- while it is in the queue.
local function note_out(hash) redis.call('HSET', hash, 'out', NOW) end

-- A trigger has left its queue, which is first in, first out: what was published before has left
-- it, too.
local function note_left(hash, queue, out)
  if not out then return end
  local passed = key('passed', queue)
  if tonumber(out) > tonumber(redis.call('GET', passed) or 0) then redis.call('SET', passed, out) end
  redis.call('HDEL', hash, 'out')
end

-- Has an event wait for its hooks. Returns it if whoever called the script is to publish its
-- trigger, else '': then upkeep does.
local function hand_over(event)
  local hash, publish = key('event', event), room('hook', WATERMARK)
  if publish then note_out(hash) end
  redis.call('HDEL', hash, 'not_before')
  redis.call('HSET', hash, 'state', 'waiting')
  redis.call('ZADD', key('state', 'waiting'), NOW, event)
  redis.call('ZADD', due_key('hook'), publish and NOW + GRACE or NOW, event)
  return publish and event or ''
end

local function put_event(event, kind, message, data)
  redis.call('HSET', key('event', event), 'kind', kind, 'data', data)
  if message then redis.call('HSET', key('event', event), 'message', message) end
end

-- Records an event for the hooks. Returns as hand_over.
local function add_event(event, kind, message, data)
  put_event(event, kind, message, data)
  return hand_over(event)
end

-- Has an event wait until a time, which is returned, for another try.
local function wait_again(event, look)
  redis.call('HSET', key('event', event), 'state', 'waiting', 'not_before', look)
  redis.call('ZADD', key('state', 'waiting'), NOW, event)
  redis.call('ZADD', due_key('hook'), look, event)
  return look
end

-- Has an event wait for what else there is to come, until a time.
local function park(event, ends)
  redis.call('HSET', key('event', event), 'state', 'parked', 'not_before', ends)
  redis.call('ZADD', key('state', 'parked'), NOW, event)
  redis.call('ZADD', due_key('hook'), ends, event)
end

-- Ends the wait of an event. Returns as hand_over.
local function unpark(event)
  redis.call('ZREM', key('state', 'parked'), event)
  return hand_over(event)
end

-- What a message ended with that no report tells of: onStatus hears of it as of a report.
-- Returns as add_event.
local function add_ending(event, id, class, why, code)
  local status = { class = class, status = why, status_code = code, id = id }
  return add_event(event, 'status', id, cjson.encode(status))
end

-- A message waits, and its trigger is published now or not; returns whether.
local function queue_up(id, from, expires, most)
  local publish = room('send', most)
  if publish then note_out(key('msg', id)) end
  enter(id, from, 'queued', sooner(publish and NOW + GRACE or NOW, expires))
  return publish and 1 or 0
end

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

-- May this provider be called now? nil: yes (for a paused one: as its probe, one at a time);
-- else the time at which to ask again.
local function paused_until(provider, token, lease)
  local hash = key('pause', provider)
  local p = read(hash, 'until', 'probe', 'probe_until')
  if not p['until'] then return nil end
  local ends, probing = tonumber(p['until']), tonumber(p.probe_until or 0)
  if NOW < ends then return ends end
  if NOW < probing and p.probe ~= token then return NOW + 1000 end
  redis.call('HSET', hash, 'probe', token, 'probe_until', NOW + lease)
  return nil
end

-- Has a message wait for a paused provider, in a line, a millisecond after the one before, so that
-- not all of them come at once. `line`: 'single', or 'bulk' of those that were sent as one of many.
-- Returns when it is to be looked at, at `earliest` or later.
local function stand_in_line(id, provider, line, earliest)
  local pause = key('pause', provider)
  local at = math.max(earliest, tonumber(redis.call('HGET', pause, line) or 0) + 1)
  redis.call('HSET', pause, line, at)
  redis.call('HSET', key('msg', id), 'behind', provider, 'line', line)
  return at
end

-- Begins an attempt at a provider, stored before the provider is called: `calling` says since
-- when the provider may have the message, until the attempt is settled.
local function begin(id, token, provider, lease)
  local ends = paused_until(provider, token, lease)
  if ends then return { 'paused', math.max(0, ends - NOW) } end
  local hash = key('msg', id)
  local m = read(hash, 'worker', 'behind')
  if m.behind then
    -- Who stood in line for another one was sent elsewhere: perhaps those behind it will be, too.
    local pause = key('pause', m.behind)
    if m.behind ~= provider and redis.call('HEXISTS', pause, 'until') == 1 then
      redis.call('HSET', pause, 'rerouted', NOW)
    end
    redis.call('HDEL', hash, 'behind', 'line', 'looked')
  end
  local attempt = redis.call('HINCRBY', hash, 'attempt', 1)
  redis.call('HSET', hash, 'provider', provider, 'calling', MOMENT)
  redis.call('ZADD', due_key('watch'), NOW + lease, id)
  count('attempts', provider)
  note(id, { state = 'sending', provider = provider, attempt = attempt,
             worker = m.worker })
  return { 'go', attempt }
end
