-- Tells how much memory is left for new messages and webhooks; changes nothing.
-- Returns: bytes in use, maxmemory (0: no limit), bytes that are reserved for what was accepted,
--          bytes that are left for send() after one ordinary message (negative: it is refused), bytes
--          that are left for webhooks, and for those of providers that hold much; from how many bytes on
--          a provider does; bytes of unhandled webhooks that one may hold; then for each provider of
--          webhooks its name, how many wait for handlers, bytes that they hold, bytes that are kept
local used, max = memory_use()
local answer = { 0, 0, 0, 0, 0, 0, 0, webhook_quota(nil) }
if used then
  local ordinary = NEW + 500 + GROWTH.hashtable.report
  local webhook = WEBHOOK_NEW + 500 + EVENT_GROWTH
  answer = { used, max, reserved(), room_left(SEND_HEADROOM) - ordinary,
             room_left(WEBHOOK_HEADROOM) - webhook, room_left(HEAVY_HEADROOM) - webhook,
             math.floor(max * HEAVY_PART), math.floor(webhook_quota(max)) }
end
-- An account that may send only does not see what came in.
local well, names = pcall(webhook_providers)
for _, name in ipairs(well and names or {}) do
  local waiting = redis.pcall('ZCARD', key('webhooks', name))
  answer[#answer + 1] = name
  answer[#answer + 1] = type(waiting) == 'number' and waiting or 0
  answer[#answer + 1] = webhook_bytes(name, 'open')
  answer[#answer + 1] = webhook_bytes(name, 'kept')
end
return answer
