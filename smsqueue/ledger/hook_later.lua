-- Has an event that waits looked at again soon: its trigger came while a worker had no room.
-- ARGV: event, delay (ms)
local hash = key('event', ARGV[1])
local e = read(hash, 'state', 'out')
note_left(hash, 'hook', e.out)
if e.state == 'waiting' then
  redis.call('ZADD', due_key('hook'), 'XX', NOW + tonumber(ARGV[2]), ARGV[1])
end
return 1
