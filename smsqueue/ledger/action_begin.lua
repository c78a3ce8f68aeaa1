-- Records that an operator begins an action on many records, before the first of them is changed.
-- ARGV: how many it is about, or ''; the action (see shared/audit_log.lua)
audit_entry(ARGV[1])
audit_count('done', 0)
return 1
