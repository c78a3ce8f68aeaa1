-- Runs the handlers of an event that is over (dead, unheard, done) again.
-- ARGV: event, whether to run also the handlers that have succeeded (1 or '')
-- Returns: the state before, or 'gone'; the event to publish, or ''
local event = ARGV[1]
local hash = key('event', event)
local state = redis.call('HGET', hash, 'state')
if not state then return { 'gone', '' } end
if state ~= 'dead' and state ~= 'unheard' and state ~= 'done' then return { state, '' } end
redis.call('ZREM', key('state', state), event)
redis.call('ZREM', key('event_ends'), event)
redis.call('HDEL', hash, 'tries', 'why')
hold_webhook_again(event)
if ARGV[2] ~= '' then redis.call('DEL', key('done', event)) end
return { state, hand_over(event) }
