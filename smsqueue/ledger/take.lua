-- Takes what is due in a lane, as far as the broker's queue has room: advances the time at which
-- somebody must next look, never removes. Publishing twice is harmless, forgetting is not.
-- ARGV: lane ('send', 'hook', or 'ask': messages whose provider is to be asked), quota
-- Returns: id, attempts so far, id, attempts, ...
local lane, quota = ARGV[1], tonumber(ARGV[2])
local queued = redis.call('LLEN', lane == 'hook' and HOOK_QUEUE or SEND_QUEUE)
-- Questions leave room for what is to be sent: they may be many, and their provider slow.
local most = { hook = WATERMARK, ask = math.ceil(BULK_WATERMARK / 2) }
local free = math.min(quota, (most[lane] or BULK_WATERMARK) - queued)
if free <= 0 then return {} end
local passed = tonumber(redis.call('GET', key('passed')) or 0)
local due, taken = due_key(lane), {}

-- A trigger is still in its queue, not lost, until one that was published later has left it.
local function still_queued(m) return m.out and queued > 0 and passed <= tonumber(m.out) end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', NOW, 'LIMIT', 0, free)) do
  redis.call('ZADD', due, NOW + GRACE, id)
  local m = lane == 'hook' and {} or read(key('msg', id), 'state', 'attempt', 'out')
  if lane == 'ask' and m.state ~= 'unknown' then
    redis.call('ZREM', due, id)
  elseif lane ~= 'send' or not still_queued(m) then
    if lane == 'send' then redis.call('HSET', key('msg', id), 'out', NOW) end
    if lane == 'ask' then redis.call('HSET', key('msg', id), 'ask_now', 1) end
    taken[#taken + 1] = id
    taken[#taken + 1] = m.attempt or 0
  end
end
return taken
