-- Decides whether Redis has memory for new messages. A message grows until it is final: timeline, delivery reports,
-- events and references are added. Accepting it reserves memory for all of that, so that every accepted message can be
-- finished below maxmemory.

-- Bytes that a message usually still needs at most: two failed attempts, two delivery reports, whose webhooks are signed
-- (each signature is remembered), and all of its events waiting at once, whose handlers fail. They are measured by
-- tests/ledger/test_memory.py and rounded up. A timeline may grow further, up to 60 lines of about 120 bytes: if most
-- messages do so at once, Redis may exceed maxmemory, and accepted messages go on all the same. The bytes depend on the
-- encoding of the records, which hash-max-listpack-value chooses. `plain`: a waiting message that asks for no reports;
-- `report`: one that asks for them; `watch`: a sent one that waits for its reports, or is unknown.
local GROWTH = {
  hashtable = { plain = 3300, report = 8200, watch = 5000 },
  packed = { plain = 2300, report = 5500, watch = 3400 },
}
-- Bytes of a new message without its data: the fields of its record, and its indexes.
local NEW = 1300
-- Bytes of the mark of a recorded webhook, or of its signature.
local SEEN = 200
-- Bytes that an event needs while its handlers run and are repeated.
local EVENT_GROWTH = 700
-- Bytes of a trigger in a queue of the broker; and of the broker's list of running tasks, connections, and other keys
-- that are not the ledger's.
local TRIGGER, PROCESSES = 1300, 2 * 1024 * 1024
-- The fraction of maxmemory that new messages leave free, since Redis's tables grow by doubling. Webhooks are refused
-- much earlier, see webhooks.lua.
local SEND_HEADROOM = 0.02
-- Waiting messages that are sampled to estimate what all of them need.
local SAMPLES = 8

-- Bytes in use and maxmemory, as Redis compares them; nil: there is no limit, or INFO is restricted.
local function memory_use()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return nil end
  local function field(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)') or 0) end
  local max = field('maxmemory')
  if max == 0 then return nil end
  return field('used_memory') - field('mem_not_counted_for_evict'), max
end

-- Bytes that one message still needs. A damaged record counts as the largest kind.
local function growth_of(id)
  local hash = key('msg', id)
  local encoding = redis.pcall('OBJECT', 'ENCODING', hash)
  local known = encoding == 'listpack' or encoding == 'ziplist'
  local growth = known and GROWTH.packed or GROWTH.hashtable
  return growth, redis.pcall('HGET', hash, 'report') and growth.report or growth.plain
end

-- Bytes that each message of a lane still needs: the maximum of some evenly spaced samples.
local function growth_of_waiting(lane, count)
  local due, most = due_key(lane), 0
  for i = 1, math.min(count, SAMPLES) do
    local place = math.floor((i - 1) * count / SAMPLES)
    if count <= SAMPLES then place = i - 1 end
    local id = redis.call('ZRANGE', due, place, place)[1]
    if id then
      local _, growth = growth_of(id)
      most = math.max(most, growth)
    end
  end
  return most
end

-- The same for messages that are being sent or wait for reports.
local function growth_of_watched()
  local id = redis.call('ZRANGE', due_key('watch'), -1, -1)[1]
  return id and growth_of(id).watch or 0
end

-- Bytes that all accepted messages need until they are final, including the broker's.
local function reserved()
  local waiting = 0
  for _, lane in ipairs({ 'send', 'send_bulk' }) do
    local count = redis.call('ZCARD', due_key(lane))
    waiting = waiting + count * growth_of_waiting(lane, count)
  end
  local events = redis.call('ZCARD', due_key('hook')) + redis.call('ZCARD', due_key('hook_bulk'))
  local triggers = triggers_in(SEND_QUEUE) + triggers_in(HOOK_QUEUE)
  return waiting
    + redis.call('ZCARD', due_key('watch')) * growth_of_watched()
    + events * EVENT_GROWTH
    + math.max(0, 2 * WATERMARK - triggers) * TRIGGER + PROCESSES
end

-- Bytes left for new messages, negative if there are too many already; nil without a limit.
local function room_left(headroom)
  local used, max = memory_use()
  if not used then return nil end
  return math.floor(max * (1 - headroom)) - used - reserved()
end

-- Bytes that a message with so many bytes of data needs until it is final.
local function need_of(size, report) return size + NEW + GROWTH.hashtable[report and 'report' or 'plain'] end

-- Bytes for messages of a group that were accepted and are not written yet.
local promised = 0
local function promise_memory(size, report) promised = promised + need_of(size, report) end

-- Is there room for another message?
local function has_room_to_send(size, report)
  local left = room_left(SEND_HEADROOM)
  return not left or promised + need_of(size, report) <= left
end
