-- Records an incoming message as an event for onReceive.
-- ARGV: event, repetition ('' or a hash that repeats share), data, number (hash), provider, repetition by the key
--       of the hashes that was used before ('' or hash)
-- Returns: 'recorded' | 'repeat' | 'full', event, event again if it is to be published, or ''
local event = ARGV[1]
local seen = ARGV[2] ~= '' and key('seen', ARGV[2])
local former = ARGV[6] ~= '' and key('seen', ARGV[6])
local before = seen and redis.call('GET', seen) or former and redis.call('GET', former)
if before then
  count('incoming', ARGV[5], 'repeated')
  return { 'repeat', before, '' }
end
if not has_room_to_receive(#ARGV[3]) then return { 'full', '', '' } end
local publish = add_event(event, 'received', nil, ARGV[3])
redis.call('HSET', key('event', event), 'number', ARGV[4])
redis.call('ZADD', key('number', ARGV[4]), NOW, event)
count('incoming', ARGV[5], 'recorded')
-- Last of all: if something fails before, the message is to be repeated.
if seen then redis.call('SET', seen, event, 'PX', REPORT_WAIT) end
if former then redis.call('SET', former, event, 'PX', REPORT_WAIT) end
return { 'recorded', event, publish }
