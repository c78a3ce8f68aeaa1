-- Runs the handlers of an event that is over (dead, unheard, done) again.
-- ARGV: event, whether to run also the handlers that have succeeded (1 or ''), the action (see shared/audit_log.lua)
-- Returns: the state before, or 'gone'; the event to publish, or ''
local before, publish, now = replay_event(ARGV[1], ARGV[2] ~= '')
if now then audit_count('done', 1, ARGV[1]) end
return { before, publish }
