-- Settles an unknown message by an operator's knowledge.
-- ARGV: id, state
-- Returns: state before it, or 'gone'; whether it is to be published (1 or 0), so that its task ends
local id, to = ARGV[1], ARGV[2]
local hash = key('msg', id)
local m = read(hash, 'state', 'report')
if not m.state then return { 'gone', 0 } end
if m.state ~= 'unknown' then return { m.state, 0 } end
-- First what can fail: a damaged message is not settled halfway.
local cause = cause_of('msg', id)
if cause then error(cause, 0) end
enter(id, 'unknown', to, report_look(to, m.report))
redis.call('HSET', hash, 'reported', to)
note(id, { state = to, why = 'settled by an operator' })
return { 'unknown', closing() }
