-- Settles an unknown message as an operator says.
-- ARGV: id, state, the action (see shared/audit_log.lua)
-- Returns: the state before, or 'gone'; whether its trigger is to be published, so that its task ends (1 or 0)
local before, now = settle_by_hand(ARGV[1], ARGV[2])
if now then audit_count('done', 1, ARGV[1]) end
return { before, now and closing() or 0 }
