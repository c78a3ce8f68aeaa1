-- Takes what is due in a lane, as far as the broker's queue has room: advances the time at which
-- somebody must next look, never removes. Publishing twice is harmless, forgetting is not.
-- ARGV: lane ('send' or 'hook'), quota, queue, watermark
-- Returns: id, attempts so far, id, attempts, ...
local lane, quota = ARGV[1], tonumber(ARGV[2])
local room = math.min(quota, tonumber(ARGV[4]) - redis.call('LLEN', ARGV[3]))
if room <= 0 then return {} end
local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due_key(lane), '-inf', NOW, 'LIMIT', 0, room)) do
  redis.call('ZADD', due_key(lane), NOW + GRACE, id)
  taken[#taken + 1] = id
  taken[#taken + 1] = lane == 'send' and redis.call('HGET', key('msg', id), 'attempt') or 0
end
return taken
