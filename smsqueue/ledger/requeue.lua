-- Sends again what an operator wants sent again: a new generation.
-- ARGV: id, validity (ms, or '')
-- Returns: state before it, or 'gone'
local id = ARGV[1]
local hash = key('msg', id)
local m = read(hash, 'state', 'attempt')
local again = { failed = true, expired = true, undelivered = true, unknown = true }
if not m.state then return 'gone' end
if not again[m.state] then return m.state end
enter(id, m.state, 'queued', NOW + GRACE)
-- Reports of the attempts until now no longer count against it.
redis.call('HSET', hash, 'first', tonumber(m.attempt or 0) + 1, 'since', NOW)
redis.call('HDEL', hash, 'token', 'tries', 'reported', 'not_before', 'expires', 'settled', 'calling')
if ARGV[2] ~= '' then redis.call('HSET', hash, 'expires', NOW + tonumber(ARGV[2])) end
redis.call('HDEL', hash, 'sent_at')
note(id, { state = 'queued', why = 'requeued by an operator' })
count('requeued')
return m.state
