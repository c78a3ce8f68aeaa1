-- Records how an operator's action on many records ended.
-- ARGV: 'done' | 'interrupted'; the action (see shared/audit_log.lua)
audit_count('done', 0)
local entry = audit_entry()
if entry then redis.call('HSET', entry, 'result', ARGV[1]) end
return 1
