-- Settles an unknown message by an operator's knowledge.
-- ARGV: id, state
-- Returns: state before it, or 'gone'
local id, to = ARGV[1], ARGV[2]
local hash = key('msg', id)
local m = read(hash, 'state', 'report')
if not m.state then return 'gone' end
if m.state ~= 'unknown' then return m.state end
enter(id, 'unknown', to, report_look(to, m.report))
redis.call('HSET', hash, 'reported', to)
note(id, { state = to, why = 'settled by an operator' })
return 'unknown'
