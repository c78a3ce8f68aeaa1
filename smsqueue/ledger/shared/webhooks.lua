-- What webhooks put into Redis, by provider. Somebody who knows the address of unsigned webhooks can
-- send any number of them: they must not take the memory of send(), nor that of other providers.
--
-- An event that waits for its handlers is in the index `webhooks:<provider>` as '<event>:<bytes>', and
-- its field `held` repeats that. What is left when it was handled counts in `kept:<provider>`, by the
-- time at which it is gone. `webhook_bytes` has the sums. So the number of an event that was deleted
-- by somebody who knows nothing of this is found again: see check_webhooks().

-- Parts of maxmemory from which on webhooks are refused: those of providers that hold much, then all.
-- send() goes on up to SEND_HEADROOM, and reports of accepted messages are never refused.
local HEAVY_HEADROOM, WEBHOOK_HEADROOM = 0.25, 0.15
-- Parts of maxmemory that webhooks of one provider that were not handled may hold, whatever
-- SMSQUEUE_WEBHOOK_QUOTA says; and with which, counting all that is kept of them, it holds much.
local QUOTA_PART, HEAVY_PART = 0.125, 0.1
-- Bytes that an event of a webhook takes beside its data: record, indexes, marks of repetitions.
local WEBHOOK_NEW = 1900
-- Bytes that are left of a handled webhook: the mark of its repetition and of its signature. A report that
-- matched no message is kept with the provider's id, which is in two places.
local MARKS, PARKED_REPORT = 2 * SEEN, 450
-- Length of time that what is kept is counted by, in ms; entries that one call looks at.
local KEPT_SPAN = math.max(1, math.floor(math.min(72 * 3600000, REPORT_WAIT, RETENTION) / 12))
local MOST_CHECKED = 200
local NOT_HANDLED = { waiting = true, parked = true, running = true }

-- A number of bytes, as it is kept in Redis; one that is damaged counts as 0.
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

-- Providers of which webhooks were counted.
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

-- Why a webhook that takes so many bytes is not recorded: 'memory', or 'quota' of its provider; nil: it is.
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

-- Counts what is left of a webhook, until a time; with `event`, that event, which is over, is a part of it.
local function keep_webhook(provider, bytes, marks, ends, event)
  local span = string.format('%.0f', (math.floor(ends / KEPT_SPAN) + 1) * KEPT_SPAN) -- its end
  add_kept(provider, span, bytes)
  add_webhook_bytes(provider, 'kept', bytes)
  if event then
    set(key('event', event), 'kept', table.concat({ provider, bytes, marks, span }, '|'))
  end
end

-- Takes an event that waits out of the count.
-- Returns: provider, bytes, those that are left of them when it is deleted; nil: it was not counted
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

-- The same of an event that is over.
local function release_kept(event)
  local hash = key('event', event)
  local kept = get(hash, 'kept')
  if not kept then return nil end
  unset(hash, 'kept')
  local provider, bytes, marks, span = string.match(kept, '^(.*)|(%d+)|(%d+)|(%d+)$')
  local there = provider and get(key('kept', provider), span)
  if there then
    bytes = math.min(as_bytes(there), bytes)
    add_kept(provider, span, -bytes)
    add_webhook_bytes(provider, 'kept', -bytes)
  end
  return provider, tonumber(bytes), tonumber(marks)
end

-- Counts an event that waits for its handlers; of one that was counted already, this size counts.
local function hold_webhook(event, provider, bytes, marks)
  release_webhook(event)
  set(key('event', event), 'held', table.concat({ provider, bytes, marks }, '|'))
  redis.call('ZADD', key('webhooks', provider), MOMENT, event .. ':' .. bytes)
  add_webhook_bytes(provider, 'open', bytes)
end

-- An event that is over waits again.
local function hold_webhook_again(event)
  local provider, bytes, marks = release_kept(event)
  if provider then hold_webhook(event, provider, bytes, marks) end
end

-- An event was handled, and is kept as long as records are.
local function keep_handled_webhook(event)
  local provider, bytes, marks = release_webhook(event)
  if provider then keep_webhook(provider, bytes, marks, NOW + RETENTION, event) end
end

-- An event is about to be deleted. A damaged one must not stop that.
-- ends: until when its marks are left (ms); nil: they are gone, too
local function forget_webhook(event, ends)
  for _, release in ipairs({ release_webhook, release_kept }) do
    local well, provider, _, marks = pcall(release, event)
    if well and provider and ends then keep_webhook(provider, marks, marks, ends) end
  end
end

-- Counts anew what is not there any more: time is over, or a worker of an older version handled it.
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
