-- Sends a message again, as an operator asked for: a new generation, which is valid from now for as long as the last
-- one was.
-- ARGV: id, validity (ms, or '': as before), bulk (1 or ''), states in which it may be (none: the usual ones)...
-- Returns: the state before, or 'gone'; whether to publish it (1 or 0)
local id = ARGV[1]
local hash = key('msg', id)
local m = read(hash, 'state', 'attempt', 'expires', 'since')
local again = { failed = true, expired = true, undelivered = true, unknown = true }
if #ARGV > 3 then
  again = {}
  for i = 4, #ARGV do again[ARGV[i]] = true end
end
if not m.state then return { 'gone', 0 } end
if not again[m.state] then return { m.state, 0 } end
-- Check first: a damaged message must not be queued halfway.
local cause = cause_of('msg', id)
if cause then error(cause, 0) end
local validity = tonumber(ARGV[2]) or m.expires and m.expires - (m.since or accepted_at(id))
local expires = validity and NOW + validity
if ARGV[3] ~= '' then redis.call('HSET', hash, 'bulk', 1) end
local publish = queue_up(id, m.state, expires, ARGV[3] ~= '')
-- Failures that are reported of earlier attempts no longer count.
redis.call('HSET', hash, 'first', tonumber(m.attempt or 0) + 1, 'since', NOW)
redis.call('HDEL', hash, 'token', 'tries', 'reported', 'not_before', 'expires', 'settled', 'calling',
           'gathers', 'pin', 'pin_until', 'pin_ref', 'ask', 'asks', 'ask_now', 'behind', 'line', 'looked',
           'resent', 'lapses')
if expires then redis.call('HSET', hash, 'expires', expires) end
redis.call('HDEL', hash, 'sent_at')
note(id, { state = 'queued', why = 'requeued by an operator' })
count('requeued')
return { m.state, publish }
