-- Sets a record aside that its worker cannot read.
-- ARGV: id, kind ('msg' | 'event'), cause, token of the claim under which it was read, whether the attempt that
--       began with the claim never called its provider (1 or '')
-- Returns: the cause, or '' if the claim is no longer valid
local id, kind = ARGV[1], ARGV[2]
local name = key(kind, id)
local m = read(name, 'token', 'attempt', 'calling')
if m.token ~= ARGV[4] then return '' end
if ARGV[5] ~= '' and m.calling then redis.call('HDEL', name, 'calling') end
local cause = cause_of(kind, id) or ARGV[3]
put_aside(kind, id, cause)
return cause
