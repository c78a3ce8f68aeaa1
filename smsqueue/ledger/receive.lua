-- Records an incoming message as an event for onReceive.
-- ARGV: event, repetition ('' or a hash that repeats share), data, number (hash), provider
-- Returns: 'recorded' | 'repeat', event, event again if it is to be published, or ''
local event = ARGV[1]
if ARGV[2] ~= '' then
  local seen = key('seen', ARGV[2])
  if not redis.call('SET', seen, event, 'NX', 'PX', REPORT_WAIT) then
    count('incoming', ARGV[5], 'repeated')
    return { 'repeat', redis.call('GET', seen), '' }
  end
end
local publish = add_event(event, 'received', nil, ARGV[3])
redis.call('HSET', key('event', event), 'number', ARGV[4])
redis.call('ZADD', key('number', ARGV[4]), NOW, event)
count('incoming', ARGV[5], 'recorded')
return { 'recorded', event, publish }
