-- Takes a claim back whose answer its worker never heard: it has no effect any more, not even if
-- Redis reads it only now, from a connection that its client has given up.
-- ARGV: id, token
-- Returns: whether it had an effect, which is to be settled (1 or ''); attempts so far
local id, token = ARGV[1], ARGV[2]
local hash = key('msg', id)
local m = read(hash, 'state', 'token', 'attempt')
if not m.state then return { '', 0 } end
if m.token ~= token then
  redis.call('HSET', hash, 'refused', token)
  return { '', 0 }
end
return { (m.state == 'sending' or m.state == 'unknown') and 1 or '', m.attempt or 0 }
