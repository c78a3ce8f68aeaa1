-- Cancels a message that waits.
-- ARGV: id, event (id for the ending)
-- Returns: the state before, or 'gone'; the event to publish, or ''; whether the message's trigger is to be
--          published, so that its task ends (1 or 0)
local id = ARGV[1]
local state = redis.call('HGET', key('msg', id), 'state') or 'gone'
if not CLAIMABLE[state] then return { state, '', 0 } end
-- A provider may have it already.
if redis.call('HEXISTS', key('msg', id), 'pin') == 1 then return { 'sending', '', 0 } end
-- Check first: a damaged message must not be cancelled halfway.
local cause = cause_of('msg', id)
if cause then error(cause, 0) end
enter(id, state, 'cancelled', nil)
note(id, { state = 'cancelled', why = 'by an operator' })
return { state, add_ending(ARGV[2], id, 'MessageError', 'cancelled'), closing() }
