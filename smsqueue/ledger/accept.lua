-- Takes a message in. Repeating it with the same id returns the first answer.
-- ARGV: id, data (JSON), not_before (ms or ''), validity (ms or ''), number (hash), idempotency
--       ('' or hash), content (hash), report (1 or ''), resend (1 or ''), bulk (1 or ''), the same content as
--       older versions hash it ('' or hash)
-- Returns: 'accepted' | 'duplicate' | 'conflict' | 'full', id, publish (1 or 0)
local id, data, not_before, validity = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local number, idempotency, content = ARGV[5], ARGV[6], ARGV[7]
local hash = key('msg', id)

local function is_same(known) return known == content or ARGV[11] ~= '' and known == ARGV[11] end

local known = read(hash, 'content', 'state')
if known.content then
  if not is_same(known.content) then return { 'conflict', id, 0 } end
  return { 'accepted', id, known.state == 'queued' and 1 or 0 }
end
if idempotency ~= '' then
  local first = redis.call('GET', key('idem', idempotency))
  if first then
    local same = is_same(redis.call('HGET', key('msg', first), 'content'))
    return { same and 'duplicate' or 'conflict', first, 0 }
  end
end

-- New messages are refused while what was accepted before needs the rest of Redis's memory. To ask
-- Redis takes longer than all else here, so one small message in sixteen asks, and then every one
-- until there is room again.
local CHECK_EACH, LARGE = 16, 4096
local before = tonumber(redis.call('HGET', key('counts'), 'accepted') or 0) or 0
if (before % CHECK_EACH == 0 or #data > LARGE) and not has_room_to_send(#data, ARGV[8] ~= '') then
  return { 'full', id, 0 }
end

local later = not_before and not_before > NOW
local state = later and 'scheduled' or 'queued'
redis.call('HSET', hash, 'data', data, 'content', content, 'number', number)
if later then redis.call('HSET', hash, 'not_before', not_before, 'since', not_before) end
local expires = validity and (not_before or NOW) + validity
if expires then redis.call('HSET', hash, 'expires', expires) end
if ARGV[8] ~= '' then redis.call('HSET', hash, 'report', 1) end
if ARGV[9] ~= '' then redis.call('HSET', hash, 'resend', 1) end
if idempotency ~= '' then
  redis.call('HSET', hash, 'idem', idempotency)
  redis.call('SET', key('idem', idempotency), id)
end
redis.call('ZADD', key('number', number), NOW, id)
note(id, { state = state, next = later and not_before or nil })
count('accepted')

if later then
  enter(id, nil, state, sooner(not_before, expires))
  return { 'accepted', id, 0 }
end
-- A fresh single message overtakes a campaign, whose messages wait for a shorter queue.
return { 'accepted', id, queue_up(id, nil, expires, ARGV[10] ~= '' and BULK_WATERMARK or WATERMARK) }
