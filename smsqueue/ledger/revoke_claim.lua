-- Takes back a claim whose answer was lost: it has no effect any more, not even if Redis reads it later, from a
-- connection that its client has closed.
-- ARGV: id, token
-- Returns: whether it had an effect, which has to be settled (1 or ''); attempts so far; provider of the attempt that
--          was begun, or ''
local id, token = ARGV[1], ARGV[2]
local hash = key('msg', id)
local m = read(hash, 'state', 'token', 'attempt', 'refused', 'calling', 'provider')
if not m.state then return { '', 0, '' } end
if m.token ~= token then
  -- Several such claims may be on their way: remember the last twenty.
  local refused = (m.refused or ' ') .. token .. ' '
  set(hash, 'refused', string.sub(refused, -20 * (#token + 1) - 1))
  return { '', 0, '' }
end
return { (m.state == 'sending' or m.state == 'unknown') and 1 or '', m.attempt or 0,
         m.calling and m.provider or '' }
