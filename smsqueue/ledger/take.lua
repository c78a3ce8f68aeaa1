-- Takes what is due in a lane, as far as the broker's queue has room: advances the time at which
-- somebody must next look, never removes. Publishing twice is harmless, forgetting is not.
-- ARGV: lane ('send' or 'hook'), quota
-- Returns: id, attempts so far, id, attempts, ...
local sends, quota = ARGV[1] == 'send', tonumber(ARGV[2])
local queued = redis.call('LLEN', sends and SEND_QUEUE or HOOK_QUEUE)
local free = math.min(quota, (sends and BULK_WATERMARK or WATERMARK) - queued)
if free <= 0 then return {} end
local passed = tonumber(redis.call('GET', key('passed')) or 0)
local due, taken = due_key(ARGV[1]), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', NOW, 'LIMIT', 0, free)) do
  redis.call('ZADD', due, NOW + GRACE, id)
  local m = sends and read(key('msg', id), 'attempt', 'out') or {}
  -- A trigger is still in its queue, not lost, until one that was published later has left it.
  if not (m.out and queued > 0 and passed <= tonumber(m.out)) then
    if sends then redis.call('HSET', key('msg', id), 'out', NOW) end
    taken[#taken + 1] = id
    taken[#taken + 1] = m.attempt or 0
  end
end
return taken
