-- Bytes that webhooks take in Redis, by provider. Anyone who knows the URL of unsigned webhooks can send any number of
-- them: they must take neither the memory for send() nor that of other providers.
--
-- An event that waits for its handlers is in the index `webhooks:<provider>` as '<event>:<bytes>', and in its own field
-- `held`. The bytes that remain after it was handled are in `kept:<provider>`, by the time at which they are deleted.
-- `webhook_bytes` has the sums. check_webhooks() corrects them when an older version has deleted an event.

-- Fractions of maxmemory that stay free of webhooks: of heavy providers, of all providers. send() goes on up to
-- SEND_HEADROOM, and reports of accepted messages are never refused.
local HEAVY_HEADROOM, WEBHOOK_HEADROOM = 0.25, 0.15
-- Fraction of maxmemory that the unhandled webhooks of one provider may take, whatever SMSQUEUE_WEBHOOK_QUOTA says; and
-- the fraction, handled ones included, above which a provider is heavy.
local QUOTA_PART, HEAVY_PART = 0.125, 0.1
-- Bytes of a webhook's event without its data: record, indexes, marks of repetitions.
local WEBHOOK_NEW = 1900
-- Bytes that remain of a handled webhook: the marks of its repetition and of its signature. A report that matched no
-- message is kept with the provider's id, which is stored twice.
local MARKS, PARKED_REPORT = 2 * SEEN, 450
-- Interval by which remaining bytes are summed, in ms; entries that one call checks.
local KEPT_SPAN = math.max(1, math.floor(math.min(72 * 3600000, REPORT_WAIT, RETENTION) / 12))
local MOST_CHECKED = 200
local NOT_HANDLED = { waiting = true, parked = true, running = true }

-- A number of bytes that was read from Redis; a damaged one counts as 0.
local function as_bytes(text)
  local bytes = tonumber(text)
  return bytes and bytes >= 0 and bytes < 2 ^ 53 and bytes or 0
end

local function webhook_bytes(provider, what)
  return as_bytes(get(key('webhook_bytes'), provider .. '|' .. what))
end

local function add_webhook_bytes(provider, what, bytes)
  local field, sum = provider .. '|' .. what, webhook_bytes(provider, what) + bytes
  if sum > 0 then
    set(key('webhook_bytes'), field, string.format('%.0f', sum))
  else
    unset(key('webhook_bytes'), field)
  end
end

-- Providers whose webhooks are counted.
local function webhook_providers()
  local names, found = {}, {}
  for _, field in ipairs(redis.call('HKEYS', key('webhook_bytes'))) do
    local name = string.match(field, '^(.*)|%a+$')
    if name and not found[name] then
      found[name] = true
      names[#names + 1] = name
    end
  end
  return names
end

local function webhook_quota(max) return max and math.min(WEBHOOK_QUOTA, max * QUOTA_PART) or WEBHOOK_QUOTA end

-- Why a webhook of so many bytes is refused: 'memory', or 'quota' of its provider; nil: it is recorded.
local function refusal_of_webhook(provider, bytes)
  local used, max = memory_use()
  local open = webhook_bytes(provider, 'open') + bytes
  if open > webhook_quota(max) then return 'quota' end
  if not max then return nil end
  local taken = used + reserved() + bytes + EVENT_GROWTH
  if taken > max * (1 - WEBHOOK_HEADROOM) then return 'memory' end
  local heavy = open + webhook_bytes(provider, 'kept') > max * HEAVY_PART
  return heavy and taken > max * (1 - HEAVY_HEADROOM) and 'quota' or nil
end

local function add_kept(provider, span, bytes)
  local sum = as_bytes(get(key('kept', provider), span)) + bytes
  if sum > 0 then set(key('kept', provider), span, sum) else unset(key('kept', provider), span) end
end

-- Counts the bytes that remain of a webhook, until a time; with `event`, they include that event, which is over.
local function keep_webhook(provider, bytes, marks, ends, event)
  local span = string.format('%.0f', (math.floor(ends / KEPT_SPAN) + 1) * KEPT_SPAN) -- its end
  add_kept(provider, span, bytes)
  add_webhook_bytes(provider, 'kept', bytes)
  if event then
    set(key('event', event), 'kept', table.concat({ provider, bytes, marks, span }, '|'))
  end
end

-- Stops counting an unhandled event.
-- Returns: provider, bytes, bytes that remain when it is deleted; nil: it was not counted
local function release_webhook(event)
  local hash = key('event', event)
  local held = get(hash, 'held')
  if not held then return nil end
  unset(hash, 'held')
  local provider, bytes, marks = string.match(held, '^(.*)|(%d+)|(%d+)$')
  if provider and redis.call('ZREM', key('webhooks', provider), event .. ':' .. bytes) == 1 then
    add_webhook_bytes(provider, 'open', -bytes)
  end
  return provider, tonumber(bytes), tonumber(marks)
end

-- The same for an event that is over.
local function release_kept(event)
  local hash = key('event', event)
  local kept = get(hash, 'kept')
  if not kept then return nil end
  unset(hash, 'kept')
  local provider, bytes, marks, span = string.match(kept, '^(.*)|(%d+)|(%d+)|(%d+)$')
  local sum_before = provider and get(key('kept', provider), span)
  if sum_before then
    bytes = math.min(as_bytes(sum_before), bytes)
    add_kept(provider, span, -bytes)
    add_webhook_bytes(provider, 'kept', -bytes)
  end
  return provider, tonumber(bytes), tonumber(marks)
end

-- Counts an event that waits for its handlers, in place of an earlier size.
local function hold_webhook(event, provider, bytes, marks)
  release_webhook(event)
  set(key('event', event), 'held', table.concat({ provider, bytes, marks }, '|'))
  redis.call('ZADD', key('webhooks', provider), MOMENT, event .. ':' .. bytes)
  add_webhook_bytes(provider, 'open', bytes)
end

-- Counts an event that was over and waits again.
local function hold_webhook_again(event)
  local provider, bytes, marks = release_kept(event)
  if provider then hold_webhook(event, provider, bytes, marks) end
end

-- Counts an event that was handled, for the retention.
local function keep_handled_webhook(event)
  local provider, bytes, marks = release_webhook(event)
  if provider then keep_webhook(provider, bytes, marks, NOW + RETENTION, event) end
end

-- Stops counting an event that is about to be deleted, which may be damaged.
-- ends: until when its marks remain (ms); nil: they are deleted, too
local function forget_webhook(event, ends)
  for _, release in ipairs({ release_webhook, release_kept }) do
    local well, provider, _, marks = pcall(release, event)
    if well and provider and ends then keep_webhook(provider, marks, marks, ends) end
  end
end

-- Corrects the sums: remaining bytes whose time is over, and events that a worker of an older version handled.
local function check_webhooks(out_of_time)
  for _, provider in ipairs(webhook_providers()) do
    for _, span in ipairs(redis.call('HKEYS', key('kept', provider))) do
      if (tonumber(span) or 0) <= NOW then
        add_webhook_bytes(provider, 'kept', -as_bytes(redis.call('HGET', key('kept', provider), span)))
        redis.call('HDEL', key('kept', provider), span)
      end
    end
    if redis.call('EXISTS', key('kept', provider)) == 0 then
      redis.call('HDEL', key('webhook_bytes'), provider .. '|kept')
    end
    local index, sums, place = key('webhooks', provider), key('webhook_bytes'), provider .. '|checked'
    local from = redis.call('HGET', sums, place)
    local entries = redis.call('ZRANGEBYSCORE', index, '(' .. (tonumber(from) and from or '-inf'), '+inf',
                               'WITHSCORES', 'LIMIT', 0, MOST_CHECKED)
    for i = 1, #entries, 2 do
      if i > 2 * FEW and out_of_time() then break end
      local event, bytes = string.match(entries[i], '^(.*):(%d+)$')
      local state = event and redis.pcall('HGET', key('event', event), 'state')
      if not (event and NOT_HANDLED[state]) then
        redis.call('ZREM', index, entries[i])
        add_webhook_bytes(provider, 'open', -(bytes or 0))
        if type(state) == 'string' then
          redis.call('HDEL', key('event', event), 'held')
          keep_webhook(provider, bytes, MARKS, NOW + RETENTION, event)
        elseif event then
          keep_webhook(provider, MARKS, MARKS, NOW + REPORT_WAIT)
        end
      end
      redis.call('HSET', sums, place, entries[i + 1])
    end
    if #entries < 2 * MOST_CHECKED then redis.call('HDEL', sums, place) end
    if redis.call('EXISTS', index) == 0 then redis.call('HDEL', sums, provider .. '|open', place) end
  end
end
