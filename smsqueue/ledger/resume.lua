-- Ends a pause at once: an operator's, and also one that a provider asked for. What waited goes out.
-- ARGV: scope ('all' | 'tag:<tag>' | 'provider:<name>'), the action (see shared/audit_log.lua)
-- Returns: whether it was paused (1 or 0), how many messages waited because of it
local scope = ARGV[1]
local provider = provider_of(scope)
if provider then
  if redis.call('HEXISTS', key('pause', provider), 'until') == 0 then return { 0, 0 } end
  local waiting = number_waiting(provider)
  end_provider_pause(provider, true)
  audit_count('done', waiting)
  return { 1, waiting }
end
local was_paused, waiting = held_scopes()[scope], number_held(scope)
if not was_paused then return { 0, 0 } end
redis.call('HDEL', key('held'), scope)
redis.call('ZADD', due_key('release'), NOW, scope)
audit_count('done', waiting)
return { 1, waiting }
