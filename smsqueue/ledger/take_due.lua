-- Takes ids that are due in a lane, as far as the broker's queue has room. It postpones them and never removes them,
-- since publishing an id twice is harmless and losing it is not.
-- Single ids come first; bulk ids (of send_many) get the rest of the quota, at least a SHARE-th. Each kind has its own
-- room in the broker's queue: single ids up to WATERMARK triggers, bulk ids up to BULK_WATERMARK; in a longer queue up
-- to a SHARE-th may be bulk.
-- ARGV: lane ('send', 'hook', or 'ask': messages whose provider is to be asked), quota, ids that one trigger will
--       carry, bulk ids at most, single ids up to which each gets its own trigger
-- Returns: { id, attempts so far, id, attempts, ... } with the single ones first; records that failed { id, cause,
--          whether it was set aside as damaged (1 or 0), ... }; whether more is due and has room (1 or ''); how many
--          are single; ids of messages whose sender named a provider or routing values; whether each single id gets
--          its own trigger (1 or '')
local lane, quota, per_trigger = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most_bulk, few_single = tonumber(ARGV[4]), tonumber(ARGV[5])
local queue = lane == 'hook' and 'hook' or 'send'
local queued = length(queue)
local passed = tonumber(redis.call('GET', key('passed', queue)) or 0) or 0
local taken, routed, more_is_due = {}, {}, false
-- Records that one call reads; ms between two messages of one wait queue that are published; ms for which upkeep is
-- known to read the lanes of bulk.
local MOST_EXAMINED, WAIT_QUEUE_INTERVAL, LANES_KNOWN = 300, 100, 60000
local SHARE = 8
local kind, failed, out_of_time = lane == 'hook' and 'event' or 'msg', {}, stopwatch()

-- Checks whether the trigger of an id is still in the broker's queue or in a worker. It has left the queue when one that
-- was published clearly later has. A worker may keep an id of a bulk trigger for a third of a GRACE: it is lost if it has
-- still not been claimed some time later.
-- Returns: ms after which to check again; nil: there is no trigger, or it is lost
local function ms_until_next_check(m, hash)
  if not m.published_at or queued == 0 then return nil end
  if passed <= tonumber(m.published_at) + GRACE / 2 then return GRACE end
  if m.overtaken == m.published_at then return nil end
  redis.call('HSET', hash, 'overtaken', m.published_at)
  return GRACE / 2
end

-- Does a message wait for providers that are still paused? Then it stays in the wait queue. One message of the queue at a
-- time is published: its router is asked again, and it probes the provider after the pause. The others follow when a
-- provider works, or when a router has chosen a provider that works.
local function stays_in_wait_queue(due, id, m)
  local ends = sooner(tonumber(m.expires) or math.huge, m.pin_until)
  if not m.waiting_for or not m.wait_queue or not m.checked_at or ends <= NOW then return false end
  local name, time = next_place(m.waiting_for, m.wait_queue, NOW + 1000)
  if not name then return false end
  local pause = key('pause', name)
  local p = read(pause, 'next_check_at', 'rerouted')
  if tonumber(m.checked_at) <= tonumber(p.rerouted or 0) then return false end
  if tonumber(p.next_check_at or 0) <= NOW then
    set(pause, 'next_check_at', NOW + WAIT_QUEUE_INTERVAL)
    return false
  end
  set(pause, m.wait_queue, time)
  redis.call('ZADD', due, sooner(time, m.expires), id)
  return true
end

-- Is a message to be held, because an operator has paused one of its tags, or everything?
local function is_held(part, id, m)
  if lane == 'hook' or sooner(tonumber(m.expires) or math.huge, m.pin_until) <= NOW then return false end
  local scope = paused_scope(m.tags)
  if scope then hold(part, id, m, scope) end
  return scope ~= nil
end

-- Is this a bulk id in the lane of single ids? An older version put it there, which recognized bulk by the last entry of
-- its data.
local BULK_DATA = ',"bulk":true}'
local function is_misplaced(id, m)
  if m.bulk then return true end
  if lane == 'hook' then return m.message and is_bulk_message(m.message) end
  local data = redis.call('HGET', key('msg', id), 'data')
  return data and string.sub(data, -#BULK_DATA) == BULK_DATA
end

-- Examines one record that is due. Returns whether it is to be published.
local function examine(part, id)
  local due, hash = due_key(part), key(kind, id)
  local m = read(hash, 'state', 'attempt', 'published_at', 'waiting_for', 'wait_queue', 'checked_at', 'expires', 'pin_until',
                 'bulk', 'message', 'routed', 'overtaken', 'tags', 'held')
  if not m.state and redis.call('EXISTS', hash) == 0 then
    redis.call('ZREM', due, id) -- its record was deleted
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
  elseif is_held(part, id, m) then
    return false
  elseif lane ~= 'send' or not stays_in_wait_queue(due, id, m) then
    local ms = lane ~= 'ask' and ms_until_next_check(m, hash)
    redis.call('ZADD', due, NOW + (ms or GRACE), id)
    if ms then return false end
    note_published(hash)
    if lane == 'ask' then redis.call('HSET', hash, 'ask_now', 1) end
    taken[#taken + 1] = id
    taken[#taken + 1] = m.attempt or 0
    if m.routed or lane == 'ask' then routed[#routed + 1] = id end
    return true
  end
  return false
end

-- Takes up to `free` ids that are due in a part of the lane. Of messages whose pause is over it takes one for each other
-- one, so that they neither wait behind a campaign nor delay it.
local examined, single, scopes = 0, 0, lane == 'hook' and {} or released_scopes()
local function take(part, free, most_examined, on_taken)
  local at_least = examined + FEW
  local function may_go_on() return free > 0 and examined < most_examined and (examined < at_least or not out_of_time()) end
  local function consider(id)
    examined = examined + 1
    isolated(kind, id, failed, function()
      if examine(part, id) then
        free = free - 1
        if on_taken then on_taken(id) end
      end
    end)
  end
  local function consider_released()
    local id = may_go_on() and next_released(part, scopes)
    if id then consider(id) end
    return id
  end
  while may_go_on() do
    local ids = redis.call('ZRANGEBYSCORE', due_key(part), '-inf', NOW, 'LIMIT', 0, free)
    if #ids == 0 and not consider_released() then return end
    for _, id in ipairs(ids) do
      if not may_go_on() then break end
      consider(id)
      consider_released()
    end
  end
  more_is_due = more_is_due or free > 0
end

if lane == 'ask' then
  -- Questions leave room for messages: they may be many, and their provider slow.
  take('ask', math.min(quota, (math.ceil(BULK_WATERMARK / 2) - queued) * per_trigger), MOST_EXAMINED)
else
  redis.call('SET', key('filled', 'lanes'), 1, 'PX', LANES_KNOWN)
  local bulk = lane .. '_bulk'
  -- A few bulk triggers are enough until the next round of upkeep, and single messages wait behind few.
  local room_for_bulk = ((per_trigger > 1 and most_alone() or BULK_WATERMARK) - queued) * per_trigger
  -- Bulk ids in a longer queue, by the time of their publishing: those that were published before a trigger that has
  -- left the queue have left it, too.
  local bulk_published = key('bulk_out', queue)
  local share = math.ceil(math.min(quota, most_bulk) / SHARE)
  if #scopes == 0 then share = #redis.call('ZRANGEBYSCORE', due_key(bulk), '-inf', NOW, 'LIMIT', 0, share) end
  if share > 0 then
    redis.call('ZREMRANGEBYSCORE', bulk_published, '-inf', passed)
    local bulk_in_queue = queued > 0 and redis.call('ZCARD', bulk_published) or 0
    local single_in_queue = queued * per_trigger - bulk_in_queue
    local room_of_share = math.max(room_for_bulk, math.ceil(single_in_queue / (SHARE - 1)) - bulk_in_queue)
    share = math.max(0, math.min(share, room_of_share))
  end
  local room_for_single = (math.max(WATERMARK, BULK_WATERMARK) - queued) * per_trigger
  take(lane, math.min(quota - share, room_for_single), share > 0 and MOST_EXAMINED * (1 - 1 / SHARE) or MOST_EXAMINED)
  single = #taken / 2
  -- There may be more single ids, which the next call takes: until then bulk gets only its share.
  local room_left = room_for_bulk - single
  local most = more_is_due and share or math.max(share, room_left)
  take(bulk, math.min(quota - single, most, most_bulk), MOST_EXAMINED, function(id)
    room_left = room_left - 1
    if room_left < 0 then redis.call('ZADD', bulk_published, NOW, id) end
  end)
  redis.call('PEXPIRE', bulk_published, 10 * GRACE)
end
if forget_released(scopes) then more_is_due = true end
local alone = single <= math.min(few_single, math.max(WATERMARK, BULK_WATERMARK) - queued)
if #taken > 0 then
  note_publishing(queue, math.ceil(single / (alone and 1 or per_trigger)) + math.ceil((#taken / 2 - single) / per_trigger))
end
return { taken, failed, more_is_due and 1 or '', single, routed, alone and 1 or '' }
