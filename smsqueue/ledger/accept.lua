-- Accepts a message. Repeating it with the same id returns the first answer.
-- ARGV: id, data (JSON), not_before (ms or ''), validity (ms or ''), number (hash), idempotency key (hash or ''),
--       content (hash), report (1 or ''), resend (1 or ''), bulk (1 or ''), content as older versions hash it
--       (hash or ''); with the former hash key (hash or ''): idempotency key, content, content of older versions;
--       whether its sender named a provider or routing values (1 or ''), tags (joined by spaces),
--       number with the former hash key (hash or '')
-- Returns: 'accepted' | 'duplicate' | 'conflict' | 'full', id, publish (1 or 0)
local id, data, not_before, validity = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local number, idempotency, content = ARGV[5], ARGV[6], ARGV[7]
local hash = key('msg', id)

local former = ARGV[12]

local function is_same(known)
  if known == content then return true end
  for _, i in ipairs({ 11, 13, 14 }) do
    if ARGV[i] ~= '' and known == ARGV[i] then return true end
  end
  return false
end

-- A record without a state was left by a call that failed halfway, unless a worker has claimed it since.
local function was_accepted(record) return record.state or record.token or record.attempt end

local known = read(hash, 'content', 'hashed', 'state', 'token', 'attempt')
if known.content and was_accepted(known) then
  if not is_same(known.content) and known.hashed ~= content then return { 'conflict', id, 0 } end
  return { 'accepted', id, known.state == 'queued' and 1 or 0 }
end
if idempotency ~= '' then
  local first = value_of(key('idem', idempotency)) or former ~= '' and value_of(key('idem', former))
  if first then
    local earlier = read(key('msg', first), 'content', 'hashed', 'state', 'token', 'attempt')
    if not earlier.content or was_accepted(earlier) then
      local same = is_same(earlier.content) or earlier.hashed == content
      return { same and 'duplicate' or 'conflict', first, 0 }
    end
  end
end

-- New messages are refused while accepted ones need the rest of Redis's memory. Reading the memory use takes
-- longer than everything else here, so it is read for one small message in sixteen, and for every one while
-- there is no room.
local CHECK_EACH, LARGE = 16, 4096
local before = (tonumber(redis.call('HGET', key('counts'), 'accepted') or 0) or 0) + (counters.accepted or 0)
local tags, size = ARGV[16], #data + bytes_of_tags(ARGV[16])
if (before % CHECK_EACH == 0 or size > LARGE) and not has_room_to_send(size, ARGV[8] ~= '') then
  return { 'full', id, 0 }
end

if known.content then delete_hash(hash) end
local later = not_before and not_before > NOW
local state = later and 'scheduled' or 'queued'
set(hash, 'data', data, 'content', content, 'number', number)
if ARGV[17] ~= '' then set(hash, 'former_number', ARGV[17]) end -- its opt-outs may be there
if ARGV[13] ~= '' then  -- compared by processes that do not have the new hash key yet
  set(hash, 'content', ARGV[13], 'hashed', content)
end
if later then set(hash, 'not_before', not_before, 'since', not_before) end
local expires = validity and (not_before or NOW) + validity
if expires then set(hash, 'expires', expires) end
if ARGV[8] ~= '' then set(hash, 'report', 1) end
if ARGV[9] ~= '' then set(hash, 'resend', 1) end
if ARGV[10] ~= '' then set(hash, 'bulk', 1) end
if ARGV[15] ~= '' then set(hash, 'routed', 1) end
if idempotency ~= '' then
  set(hash, 'idem', idempotency)
  call_last('SET', key('idem', idempotency), id)
  -- For processes that do not have the new hash key yet.
  if former ~= '' then call_last('SET', key('idem', former), id, 'PX', RETENTION) end
end
index_add(key('number', number), NOW, id)
if tags ~= '' then
  set(hash, 'tags', tags)
  for _, index in ipairs(tag_indexes(tags)) do index_add(index, NOW, id) end
end
note(id, { state = state, next = later and not_before or nil })
count('accepted')
promise_memory(size, ARGV[8] ~= '')

if later then
  enter(id, nil, state, sooner(not_before, expires))
  return { 'accepted', id, 0 }
end
-- A single message is published though a campaign waits, whose messages need a shorter queue.
return { 'accepted', id, queue_up(id, nil, expires, ARGV[10] ~= '') }
