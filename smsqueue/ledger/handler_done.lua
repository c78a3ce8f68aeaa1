-- Records that a handler of an event succeeded, so that a retry does not call it again.
-- ARGV: event, handler
if redis.call('EXISTS', key('event', ARGV[1])) == 1 then
  redis.call('SADD', key('done', ARGV[1]), ARGV[2])
end
return 1
