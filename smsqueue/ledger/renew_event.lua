-- Renews the lease of a running event, whose worker calls another handler.
-- ARGV: event, token
-- Returns: 1, or 0 if the event is no longer this worker's
local event, token = ARGV[1], ARGV[2]
local hash = key('event', event)
local e = read(hash, 'state', 'token')
if e.state ~= 'running' or e.token ~= token then return 0 end
redis.call('HSET', hash, 'lease', NOW + HOOK_LEASE)
look_at_event(event, NOW + HOOK_LEASE)
return 1
