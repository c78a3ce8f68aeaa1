-- Gives back an id of a trigger that a stopping worker has not claimed: the upkeep of another worker publishes it at
-- once. Harmless for any id.
-- ARGV: id of a message or an event, its kind ('msg' | 'event')
-- Returns: whether it is due now (1 or '')
local id, kind = ARGV[1], ARGV[2]
local hash, lanes = key(kind, id), { 'send', 'send_bulk', 'ask' }
local m = read(hash, 'state', 'published_at', 'lease', 'not_before', 'ask_now')
local waits = CLAIMABLE[m.state] or m.state == 'unknown' and m.ask_now
if kind == 'event' then
  lanes = { 'hook', 'hook_bulk' }
  waits = m.state == 'waiting' or m.state == 'parked' or
      m.state == 'running' and (tonumber(m.lease) or 0) <= NOW
end
-- Without `published_at` another worker has claimed it since, and has put it off.
if not waits or not m.published_at then return '' end
unset(hash, 'published_at', 'overtaken')
local look = math.max(NOW, tonumber(m.not_before) or 0)
for _, lane in ipairs(lanes) do redis.call('ZADD', due_key(lane), 'XX', look, id) end
return 1
