-- Cancels a message that waits.
-- ARGV: id, event (id for the ending), the action (see shared/audit_log.lua)
-- Returns: the state before, or 'gone'; the event to publish, or ''; whether the message's trigger is to be
--          published, so that its task ends (1 or 0)
local before, event, now = cancel_message(ARGV[1], ARGV[2])
if now then audit_count('done', 1, ARGV[1]) end
return { before, event, now and closing() or 0 }
