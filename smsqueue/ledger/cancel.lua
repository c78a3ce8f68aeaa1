-- Cancels a message that waits.
-- ARGV: id, event (id for the ending)
-- Returns: state before it, or 'gone'
local id = ARGV[1]
local state = redis.call('HGET', key('msg', id), 'state') or 'gone'
if not CLAIMABLE[state] then return state end
enter(id, state, 'cancelled', nil)
note(id, { state = 'cancelled', why = 'by an operator' })
add_ending(ARGV[2], id, 'MessageError', 'cancelled')
return state
