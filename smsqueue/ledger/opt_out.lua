-- Adds or ends opt-outs of a number.
-- ARGV: hash of the number, hash with the former hash key (or ''), number, scope ('<sender>|<category>'), why, by
--       ('keyword', 'provider', 'operator', 'application'), 'add' or 'end'
-- Returns: how many were added or have ended
local scope, changed = ARGV[4], 0
if ARGV[7] == 'end' then
  changed = end_opt_outs(ARGV[1], scope)
  if ARGV[2] ~= '' then changed = changed + end_opt_outs(ARGV[2], scope) end
elseif redis.call('HEXISTS', key('optout', ARGV[1]), scope) == 0 then
  add_opt_out(ARGV[1], ARGV[3], scope, ARGV[5], ARGV[6])
  changed = 1
end
if changed > 0 then audit_count('done', changed) end
return changed
