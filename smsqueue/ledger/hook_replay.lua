-- Runs the handlers of an event that is over (dead, unheard, done) again.
-- ARGV: event, whether to run also the handlers that have succeeded (1 or '')
-- Returns: the state before, or 'gone'; the event to publish, or ''
local before, publish = replay_event(ARGV[1], ARGV[2] ~= '')
return { before, publish }
