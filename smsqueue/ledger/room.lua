-- Tells how much memory is left for new messages; changes nothing.
-- Returns: bytes in use, maxmemory (0: no limit), bytes that are reserved for what was accepted,
--          bytes that are left for send() after one ordinary message (negative: it is refused)
local used, max = memory_use()
if not used then return { 0, 0, 0, 0 } end
local ordinary = NEW + 500 + GROWTH.hashtable.report
return { used, max, reserved(), room_left(SEND_HEADROOM) - ordinary }
