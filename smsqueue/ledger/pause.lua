-- Pauses a provider, a tag or everything, as an operator asks: for all workers, from now on. A second pause of the same
-- scope replaces the first.
-- ARGV: scope ('all' | 'tag:<tag>' | 'provider:<name>'), its end (ms, or ''), else its length (ms, or '': no end), why, who,
--       the action (see shared/audit_log.lua)
-- Returns: 'paused', end (ms, or ''), how many messages wait because of it | 'past' (the end is over) |
--          'many' (too many tags are paused)
local MOST_SCOPES, FOR_EVER = 100, 10 * 365 * 86400000
local scope, reason, by = ARGV[1], ARGV[4], ARGV[5]
local ends = tonumber(ARGV[2]) or tonumber(ARGV[3]) and NOW + tonumber(ARGV[3])
if ends and ends <= NOW then return { 'past' } end
local provider, waiting = provider_of(scope), 0
if provider then
  local pause = key('pause', provider)
  local p = read(pause, 'until', 'by', 'auto_until', 'times')
  local asked_for = tonumber(not p.by and p['until'] or p.auto_until or 0)
  redis.call('HSET', pause, 'by', by, 'reason', reason, 'paused_at', NOW, 'since', MOMENT, 'times', p.times or 1)
  redis.call('HDEL', pause, 'ends', 'auto_until', 'probe', 'probe_until')
  if ends then redis.call('HSET', pause, 'ends', ends) end
  if asked_for > NOW then redis.call('HSET', pause, 'auto_until', asked_for) end
  redis.call('PEXPIRE', pause, (ends and ends - NOW or FOR_EVER) + 2 * 86400000)
  redis.call('SADD', key('pauses'), provider)
  redis.call('ZADD', due_key('release'), prolong(provider, ends), scope)
  redis.call('DEL', key('release', provider))
  waiting = number_waiting(provider)
else
  if redis.call('HEXISTS', key('held'), scope) == 0 and redis.call('HLEN', key('held')) >= MOST_SCOPES then
    return { 'many' }
  end
  local about = { by = by, reason = reason, since = NOW }
  redis.call('HSET', key('held'), scope, string.format('%.0f ', ends or 0) .. cjson.encode(about))
  if ends then redis.call('ZADD', due_key('release'), ends, scope)
  else redis.call('ZREM', due_key('release'), scope) end
  waiting = number_held(scope)
end
audit_count('done', waiting)
return { 'paused', ends or '', waiting }
