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

-- The next place in the lines of messages that wait for paused providers, a millisecond after the one
-- before, so that not all of them come at once.
-- names: of the providers, with a space between them; line: 'single', or 'bulk' for those that were
-- sent as one of many; least: a time
-- Returns: the provider in whose line it comes first, and when that is; nil if one of them is not paused.
local function next_place(names, line, least)
  local best, at
  for name in string.gmatch(names, '%S+') do
    local p = read(key('pause', name), 'until', line)
    if not p['until'] then return nil end
    local place = math.max(p['until'], least, tonumber(p[line] or 0) + 1)
    if not at or place < at then best, at = name, place end
  end
  return best, at
end

-- Who stood in line was sent to a provider that it did not wait for, and that works: those behind it may
-- be, too.
local function call_out(names, provider)
  if string.find(' ' .. names .. ' ', ' ' .. provider .. ' ', 1, true) then return end
  if redis.call('EXISTS', key('pause', provider)) == 1 then return end
  for name in string.gmatch(names, '%S+') do
    local pause = key('pause', name)
    if redis.call('EXISTS', pause) == 1 then redis.call('HSET', pause, 'rerouted', NOW) end
  end
end

-- Begins an attempt at a provider, stored before the provider is called: `calling` says since
-- when the provider may have the message, until the attempt is settled.
local function begin(id, token, provider, lease)
  local ends = paused_until(provider, token, lease)
  if ends then return { 'paused', math.max(0, ends - NOW) } end
  local hash = key('msg', id)
  local m = read(hash, 'worker', 'behind')
  if m.behind then
    call_out(m.behind, provider)
    redis.call('HDEL', hash, 'behind', 'line', 'looked')
  end
  local attempt = redis.call('HINCRBY', hash, 'attempt', 1)
  redis.call('HSET', hash, 'provider', provider, 'calling', MOMENT, 'gathers', attempt)
  redis.call('ZADD', due_key('watch'), NOW + lease, id)
  count('attempts', provider)
  note(id, { state = 'sending', provider = provider, attempt = attempt, worker = m.worker })
  return { 'go', attempt }
end
