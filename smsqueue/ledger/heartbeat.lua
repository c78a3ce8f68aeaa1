-- Records a worker's heartbeat, or that it ends. One heartbeat in SAMPLE_EACH ms also takes a sample of the counters.
-- ARGV: worker, its description (JSON; '': it ends)
local workers = key('workers')
if ARGV[2] == '' then
  redis.call('HDEL', workers, ARGV[1])
  return 1
end
redis.call('HSET', workers, ARGV[1], NOW .. ' ' .. ARGV[2])

-- Samples say how fast the ledger works, and what failed lately: see activity.py, which names the counters too.
local SAMPLE_EACH, KEEP = 15000, 960000
local SAMPLED = { accepted = true, attempts = true, errors = true, ended = true, hooks = true }
local samples = key('samples')
local newest = redis.call('ZRANGE', samples, -1, -1, 'WITHSCORES')
local newest_at = tonumber(newest[2] or 0)
if newest_at <= NOW and NOW - newest_at < SAMPLE_EACH then return 1 end

local counted = {}
local counts = redis.call('HGETALL', key('counts'))
for i = 1, #counts, 2 do
  local number = string.match(counts[i + 1], '^%d+$') and tonumber(counts[i + 1])
  if number and number < 2 ^ 53 then
    local name = string.match(counts[i], '^[^|]*')
    -- The buckets of a histogram add up to the number of messages.
    local provider = name == 'took' and string.match(counts[i], '^took|sent|(.*)|[^|]*$')
    local sum = provider and 'sent|' .. provider or SAMPLED[name] and counts[i]
    if sum then counted[sum] = (counted[sum] or 0) + number end
  end
end
local waiting = redis.call('ZCARD', state_key('queued')) + redis.call('ZCARD', state_key('retrying'))
redis.call('ZADD', samples, NOW, NOW .. ' ' .. cjson.encode({ waiting = waiting, counts = counted }))
redis.call('ZREMRANGEBYSCORE', samples, '-inf', NOW - KEEP)
-- Redis's clock may have been set back.
redis.call('ZREMRANGEBYSCORE', samples, '(' .. NOW, '+inf')

-- Workers that were lost stay on the list for an hour: `smsqueue status` names the last one if there is no other.
local all = redis.call('HGETALL', workers)
for i = 1, #all, 2 do
  local seen = tonumber(string.match(all[i + 1], '^%d+') or 0)
  if math.abs(NOW - seen) > 3600000 then redis.call('HDEL', workers, all[i]) end
end
return 1
