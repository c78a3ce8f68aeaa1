-- Cancels a message that waits.
-- ARGV: id, event (id for the ending)
-- Returns: state before it, or 'gone'; the event if it is to be published, or ''; whether the
--          message is (1 or 0), so that its task ends
local id = ARGV[1]
local state = redis.call('HGET', key('msg', id), 'state') or 'gone'
if not CLAIMABLE[state] then return { state, '', 0 } end
-- A provider may have it: it is as good as being sent.
if redis.call('HEXISTS', key('msg', id), 'pin') == 1 then return { 'sending', '', 0 } end
-- First what can fail: a damaged message is not cancelled halfway.
local cause = cause_of('msg', id)
if cause then error(cause, 0) end
enter(id, state, 'cancelled', nil)
note(id, { state = 'cancelled', why = 'by an operator' })
return { state, add_ending(ARGV[2], id, 'MessageError', 'cancelled'), closing() }
