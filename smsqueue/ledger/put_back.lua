-- A worker that stops gives back what it was told to look at and has not claimed: upkeep of another one
-- publishes it at once. Harmless for any id.
-- ARGV: id of a message or an event, its kind ('msg' | 'event')
-- Returns: whether it is to be looked at now (1 or '')
local id, kind = ARGV[1], ARGV[2]
local hash, lane = key(kind, id), kind == 'event' and 'hook' or 'send'
local m = read(hash, 'state', 'out')
local waits = CLAIMABLE[m.state] or kind == 'event' and m.state == 'waiting'
-- Without `out` somebody has claimed it since, and put it back to be looked at later.
if not waits or not m.out then return '' end
unset(hash, 'out')
for _, part in ipairs({ lane, lane .. '_bulk' }) do
  redis.call('ZADD', due_key(part), 'XX', NOW, id)
end
return 1
