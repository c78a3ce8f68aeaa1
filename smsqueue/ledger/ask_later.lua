-- Records that a provider knows nothing of an unknown message (yet).
-- ARGV: id, ms until it is asked again
local id = ARGV[1]
if redis.call('HGET', key('msg', id), 'state') == 'unknown' then
  redis.call('ZADD', due_key('ask'), NOW + tonumber(ARGV[2]), id)
else
  redis.call('ZREM', due_key('ask'), id)
end
return 1
