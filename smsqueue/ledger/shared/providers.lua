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
    -- Who stood in line for another one was sent to one that works: those behind may be, too.
    local pause, other = key('pause', m.behind), key('pause', provider)
    if redis.call('EXISTS', pause) == 1 and redis.call('EXISTS', other) == 0 then
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
