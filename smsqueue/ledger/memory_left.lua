-- Reads how much memory is left for new messages and webhooks.
-- Returns: bytes in use, maxmemory (0: no limit), bytes reserved for accepted messages, bytes left for send() after
--          one ordinary message (negative: it is refused), bytes left for webhooks, bytes left for webhooks of heavy
--          providers, bytes from which on a provider is heavy, quota of one provider's unhandled webhooks; then for
--          each provider of webhooks: name, unhandled ones, their bytes, bytes of handled ones
local used, max = memory_use()
local answer = { 0, 0, 0, 0, 0, 0, 0, webhook_quota(nil) }
if used then
  local ordinary = NEW + 500 + GROWTH.hashtable.report
  local webhook = WEBHOOK_NEW + 500 + EVENT_GROWTH
  answer = { used, max, reserved(), room_left(SEND_HEADROOM) - ordinary,
             room_left(WEBHOOK_HEADROOM) - webhook, room_left(HEAVY_HEADROOM) - webhook,
             math.floor(max * HEAVY_PART), math.floor(webhook_quota(max)) }
end
-- An account that may only send cannot read webhooks.
local well, names = pcall(webhook_providers)
for _, name in ipairs(well and names or {}) do
  local waiting = redis.pcall('ZCARD', key('webhooks', name))
  answer[#answer + 1] = name
  answer[#answer + 1] = type(waiting) == 'number' and waiting or 0
  answer[#answer + 1] = webhook_bytes(name, 'open')
  answer[#answer + 1] = webhook_bytes(name, 'kept')
end
return answer
