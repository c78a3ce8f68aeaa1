-- Records a part of a long incoming message. All parts make one event for onReceive: it is parked until the last
-- part has arrived, at most for the given time, and then has the parts that are there.
-- The JSON of the parts is joined as text, so that nothing in it changes.
-- ARGV: event, repetition (hash that repeated webhooks share, or ''), head (the data without the body: the text of
--       a JSON object that ends in its meta, without its last two braces), body (the text of a JSON string, without
--       its quotes), number (hash), provider, group (hash that the parts share), part, total, wait (ms), media (the
--       text of a JSON list, without its brackets), repetition with the former hash key (hash or '')
-- Returns: as receive.lua
local event, repetition, head, body, number, provider = unpack(ARGV, 1, 6)
local media = ARGV[11]
-- Bytes of the joined text, and of the media, that are kept; as for a whole message (serialization.py).
local MOST_JOINED, CUT = 8 * 1024, ' [cut by smsqueue]'
local parts, part, total, wait = key('parts', ARGV[7]), ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local seen = repetition ~= '' and key('seen', repetition)
local former = ARGV[12] ~= '' and key('seen', ARGV[12])
local before = seen and redis.call('GET', seen) or former and redis.call('GET', former)
if before then
  count('incoming', provider, 'repeated')
  return { 'repeat', before, '' }
end
-- The parts so far are written again with this one.
local bytes = #head + 2 * #body + 2 * #media + WEBHOOK_NEW
local refusal = refusal_of_webhook(provider, bytes)
if refusal then
  count('webhooks_refused', provider, refusal)
  return { 'full', refusal, '' }
end

local open = redis.call('HGET', parts, 'event')
if open then
  local parked = redis.call('HGET', key('event', open), 'state') == 'parked'
  if not parked or redis.call('HEXISTS', parts, 'body' .. part) == 1 then
    -- The handlers have run with the parts of that message; or this is another message, since phones number theirs
    -- from 0 to 255 and start over.
    if parked then
      redis.call('HDEL', key('event', open), 'not_before')
      redis.call('ZADD', due_key('hook'), NOW, open)
    end
    redis.call('DEL', parts)
    open = nil
  end
end
if not open then
  open = event
  put_event(open, 'received', nil, '')
  put_off(open, 'parked', NOW + wait)
  redis.call('HSET', key('event', open), 'number', number, 'group', ARGV[7])
  redis.call('ZADD', key('number', number), NOW, open)
  redis.call('HSET', parts, 'event', open)
  count('incoming', provider, 'recorded')
end
redis.call('HSET', parts, 'head' .. part, head, 'body' .. part, body, 'media' .. part, media)
redis.call('PEXPIRE', parts, math.max(REPORT_WAIT, wait))
local _, others = release_webhook(open)
hold_webhook(open, provider, bytes + (others or 0), MARKS)
if seen then redis.call('SET', seen, open, 'PX', REPORT_WAIT) end
if former then redis.call('SET', former, open, 'PX', REPORT_WAIT) end

-- Appends a text to a list, until the texts of the list are too long together.
local function append(list, text)
  list.size = (list.size or 0) + #text
  if #list == 0 or list.size <= MOST_JOINED then list[#list + 1] = text else list.cut = true end
end

local first, bodies, files, missing = nil, {}, {}, {}
for i = 1, total do
  local text = redis.call('HGET', parts, 'body' .. i)
  if text then
    first = first or redis.call('HGET', parts, 'head' .. i)
    append(bodies, text)
    local list = redis.call('HGET', parts, 'media' .. i)
    if list and list ~= '' then append(files, list) end
  else
    missing[#missing + 1] = i
  end
end
if #missing > 0 then first = first .. ',"missing":[' .. table.concat(missing, ',') .. ']' end
first = first .. '},"body":"' .. table.concat(bodies) .. (bodies.cut and CUT or '') .. '"'
if #files > 0 then first = first .. ',"media":[' .. table.concat(files, ',') .. ']' end
first = first .. '}'
redis.call('HSET', key('event', open), 'data', first)
if #missing > 0 then return { 'recorded', open, '' } end
redis.call('DEL', parts)
return { 'recorded', open, unpark(open) }
