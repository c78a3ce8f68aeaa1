-- Settles an unknown message as an operator says.
-- ARGV: id, state
-- Returns: the state before, or 'gone'; whether its trigger is to be published, so that its task ends (1 or 0)
local id, to = ARGV[1], ARGV[2]
local hash = key('msg', id)
local m = read(hash, 'state', 'report')
if not m.state then return { 'gone', 0 } end
if m.state ~= 'unknown' then return { m.state, 0 } end
-- Check first: a damaged message must not be settled halfway.
local cause = cause_of('msg', id)
if cause then error(cause, 0) end
enter(id, 'unknown', to, report_look(to, m.report))
redis.call('HSET', hash, 'reported', to)
note(id, { state = to, why = 'settled by an operator' })
return { 'unknown', closing() }
