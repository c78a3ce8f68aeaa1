-- Takes what is due in a lane, as far as the broker's queue has room: advances the time at which
-- somebody must next look, never removes. Publishing twice is harmless, forgetting is not.
-- Of messages and of events, single ones come first, bulk takes what they leave of the quota: at least a
-- SHARE-th of it. Each has its own room in the broker's queue: single ones up to WATERMARK triggers, bulk
-- up to BULK_WATERMARK; and of a queue that is longer a SHARE-th may be bulk.
-- ARGV: lane ('send', 'hook', or 'ask': messages whose provider is to be asked), quota, ids that one trigger
--       will carry, how many of them at most may have been sent as one of many, up to how many single ones are
--       published each by itself
-- Returns: { id, attempts so far, id, attempts, ... } single ones first, what could not be looked at { id,
--          cause, whether it was put aside as damaged (1 or 0), ... }, whether more is due that there is room
--          for (1 or ''), how many of the first are single ones, ids of messages whose sender named a
--          provider or routing values, are the single ones few, and is there room for a trigger of each (1 or '')
local lane, quota, per_trigger = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most_bulk, few_single = tonumber(ARGV[4]), tonumber(ARGV[5])
local queue = lane == 'hook' and 'hook' or 'send'
local queued = length(queue)
local passed = tonumber(redis.call('GET', key('passed', queue)) or 0) or 0
local taken, routed, full = {}, {}, false
-- Records that one call looks at; ms between two of a line that are looked at; ms for which upkeep is known
-- to look into the lanes of bulk.
local MOST_LOOKS, APART, KNOWN = 300, 100, 60000
local SHARE = 8
local kind, failed, out_of_time = lane == 'hook' and 'event' or 'msg', {}, stopwatch()

-- A trigger is still in its queue, not lost, until one that was published clearly later has left it. Even then a
-- worker may keep its id for a third of a GRACE, if it was one of many: it is lost if that is still so a while later.
-- Returns: in how many ms it is to be looked at again; nil: it is lost
local function still_out(m, hash)
  if not m.out or queued == 0 then return nil end
  if passed <= tonumber(m.out) + GRACE / 2 then return GRACE end
  if m.overtaken == m.out then return nil end
  redis.call('HSET', hash, 'overtaken', m.out)
  return GRACE / 2
end

-- Does a message wait for providers that are paused still? Then a worker need not find that out for
-- each of them: one after the other asks its router again, and probes the provider if its pause is
-- over; the rest of the line follows when one of them works, or a router sent somebody elsewhere.
local function in_line(due, id, m)
  local ends = sooner(tonumber(m.expires) or math.huge, m.pin_until)
  if not m.behind or not m.line or not m.looked or ends <= NOW then return false end
  local name, look = next_place(m.behind, m.line, NOW + 1000)
  if not name then return false end
  local pause = key('pause', name)
  local p = read(pause, 'looks', 'rerouted')
  if tonumber(m.looked) <= tonumber(p.rerouted or 0) then return false end
  if tonumber(p.looks or 0) <= NOW then
    redis.call('HSET', pause, 'looks', NOW + APART)
    return false
  end
  redis.call('HSET', pause, m.line, look)
  redis.call('ZADD', due, sooner(look, m.expires), id)
  return true
end

-- Was something that is in the lane of single ones sent as one of many? An older version put it there. It
-- knew a message of many by the last entry of its data.
local BULK_DATA = ',"bulk":true}'
local function is_misplaced(id, m)
  if m.bulk then return true end
  if lane == 'hook' then return m.message and is_bulk_message(m.message) end
  local data = redis.call('HGET', key('msg', id), 'data')
  return data and string.sub(data, -#BULK_DATA) == BULK_DATA
end

-- Looks at one record that is due. Returns whether it is to be published.
local function look(part, id)
  local due, hash = due_key(part), key(kind, id)
  local m = read(hash, 'state', 'attempt', 'out', 'behind', 'line', 'looked', 'expires', 'pin_until', 'bulk', 'message', 'routed',
                 'overtaken')
  if not m.state and redis.call('EXISTS', hash) == 0 then
    redis.call('ZREM', due, id) -- it is forgotten
    return false
  end
  check_record(kind, m)
  if lane == 'ask' and m.state ~= 'unknown' then
    redis.call('ZREM', due, id)
  elseif lane == 'send' and LANE[m.state] ~= 'send' or
      lane == 'hook' and (m.state == 'done' or m.state == 'dead' or m.state == 'unheard') then
    redis.call('ZREM', due, id)
    if LANE[m.state] == 'watch' then redis.call('ZADD', due_key('watch'), 'NX', NOW, id) end
  elseif part == lane and lane ~= 'ask' and is_misplaced(id, m) then
    redis.call('HSET', hash, 'bulk', 1)
    redis.call('ZADD', due_key(lane .. '_bulk'), 'NX', redis.call('ZSCORE', due, id), id)
    redis.call('ZREM', due, id)
  elseif lane ~= 'send' or not in_line(due, id, m) then
    local again = lane ~= 'ask' and still_out(m, hash)
    redis.call('ZADD', due, NOW + (again or GRACE), id)
    if again then return false end
    note_out(hash)
    if lane == 'ask' then redis.call('HSET', hash, 'ask_now', 1) end
    taken[#taken + 1] = id
    taken[#taken + 1] = m.attempt or 0
    if m.routed or lane == 'ask' then routed[#routed + 1] = id end
    return true
  end
  return false
end

-- Takes up to `free` of what is due in a part of the lane.
local looks, single = 0, 0
local function take(part, free, most_looks, on_taken)
  local few = looks + FEW
  while free > 0 and looks < most_looks and (looks < few or not out_of_time()) do
    local ids = redis.call('ZRANGEBYSCORE', due_key(part), '-inf', NOW, 'LIMIT', 0, free)
    if #ids == 0 then return end
    for _, id in ipairs(ids) do
      if looks >= few and out_of_time() then break end
      looks = looks + 1
      isolated(kind, id, failed, function()
        if look(part, id) then
          free = free - 1
          if on_taken then on_taken(id) end
        end
      end)
    end
  end
  full = full or free > 0
end

if lane == 'ask' then
  -- Questions leave room for what is to be sent: they may be many, and their provider slow.
  take('ask', math.min(quota, (math.ceil(BULK_WATERMARK / 2) - queued) * per_trigger), MOST_LOOKS)
else
  redis.call('SET', key('filled', 'lanes'), 1, 'PX', KNOWN)
  local bulk = lane .. '_bulk'
  -- A few triggers of many are work enough until upkeep comes again, and what is single waits behind few.
  local room_for_bulk = ((per_trigger > 1 and most_alone() or BULK_WATERMARK) - queued) * per_trigger
  -- Bulk in a queue that is longer, by when it was published: what was published before another trigger
  -- that has left the queue has left it, too.
  local out = key('bulk_out', queue)
  local share = #redis.call('ZRANGEBYSCORE', due_key(bulk), '-inf', NOW, 'LIMIT', 0, math.ceil(math.min(quota, most_bulk) / SHARE))
  if share > 0 then
    redis.call('ZREMRANGEBYSCORE', out, '-inf', passed)
    local in_queue = queued > 0 and redis.call('ZCARD', out) or 0
    local single = queued * per_trigger - in_queue
    local most = math.max(room_for_bulk, math.ceil(single / (SHARE - 1)) - in_queue)
    share = math.max(0, math.min(share, most))
  end
  local room_for_single = (math.max(WATERMARK, BULK_WATERMARK) - queued) * per_trigger
  take(lane, math.min(quota - share, room_for_single), share > 0 and MOST_LOOKS * (1 - 1 / SHARE) or MOST_LOOKS)
  single = #taken / 2
  -- Of single ones that were not looked at yet the next call knows: until then bulk has its share only.
  local left = room_for_bulk - #taken / 2
  local most = full and share or math.max(share, left)
  take(bulk, math.min(quota - #taken / 2, most, most_bulk), MOST_LOOKS, function(id)
    left = left - 1
    if left < 0 then redis.call('ZADD', out, NOW, id) end
  end)
  redis.call('PEXPIRE', out, 10 * GRACE)
end
local alone = single <= math.min(few_single, math.max(WATERMARK, BULK_WATERMARK) - queued)
if #taken > 0 then
  note_publishing(queue, math.ceil(single / (alone and 1 or per_trigger)) + math.ceil((#taken / 2 - single) / per_trigger))
end
return { taken, failed, full and 1 or '', single, routed, alone and 1 or '' }
