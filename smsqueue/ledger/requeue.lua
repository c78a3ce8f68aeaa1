-- Sends a message again, as an operator asked for.
-- ARGV: id, validity (ms, or '': as before), bulk (1 or ''), states in which it may be, with a space between them, the
--       action (see shared/audit_log.lua)
-- Returns: the state before, or 'gone'; whether to publish it (1 or 0); the state now, or ''
local states = {}
for state in string.gmatch(ARGV[4], '%S+') do states[state] = true end
local before, publish, now = requeue_message(ARGV[1], tonumber(ARGV[2]), ARGV[3] ~= '', states)
if now then audit_count('done', 1, ARGV[1]) end
return { before, publish, now or '' }
