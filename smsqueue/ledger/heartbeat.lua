-- Records a worker's heartbeat, or that it ends.
-- ARGV: worker, its description (JSON; '': it ends)
local workers = key('workers')
if ARGV[2] == '' then
  redis.call('HDEL', workers, ARGV[1])
  return 1
end
redis.call('HSET', workers, ARGV[1], NOW .. ' ' .. ARGV[2])
-- A lost worker stays on the list for an hour, so that `smsqueue status` shows it.
local all = redis.call('HGETALL', workers)
for i = 1, #all, 2 do
  local seen = tonumber(string.match(all[i + 1], '^%d+') or 0)
  if seen < NOW - 3600000 then redis.call('HDEL', workers, all[i]) end
end
return 1
