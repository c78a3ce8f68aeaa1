-- The files of this folder define what the scripts share, in the order that scripts.py gives. A header sets times in
-- milliseconds (GRACE, RETENTION, REPORT_WAIT, PARK_WAIT, HOOK_LEASE), the lengths of the broker's queues above which
-- no trigger is added (WATERMARK, BULK_WATERMARK), and the bytes that the unhandled webhooks of a provider may take
-- (WEBHOOK_QUOTA). All times are by Redis's clock, so that workers' clocks do not matter.
local NS, SEND_QUEUE, HOOK_QUEUE = KEYS[1], KEYS[2], KEYS[3]

-- Keys that many messages share and that no message depends on: indexes, pauses, counters. One of the wrong type (a
-- failed restore, another program's key) is set aside, see damage.lua, and starts over empty: it must not make
-- operations on messages fail.
local SHARED = { state = true, due = true, number = true, tag = true, ends = true, event_ends = true,
                 pause = true, pauses = true, workers = true, counts = true, passed = true,
                 filled = true, full = true, bulk_out = true, health = true, ref = true, refs = true, parked = true, parts = true,
                 damaged = true, webhooks = true, webhook_bytes = true, kept = true,
                 unrouted = true, unrouted_why = true, sweeper = true, audit = true, held = true, release = true, audit_same = true,
                 samples = true, optout = true, optouts = true }
local server, set_aside = redis, nil

-- Every script calls Redis by this function. It raises errors as plain text, in all versions of Redis.
local redis = { pcall = server.pcall, error_reply = server.error_reply }
function redis.call(...)
  local answer = server.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then
    local name = select(2, ...)
    local kind = string.match(string.sub(name, #NS + 2), '^[%a_]+')
    if SHARED[kind] then
      set_aside(name)
      return server.call(...)
    end
  end
  error(answer.err, 0)
end

-- Triggers in a queue of the broker. A key that is not a list counts as full: this runs in the middle of transitions,
-- which an error must not end halfway.
local function triggers_in(queue)
  local triggers = redis.pcall('LLEN', queue)
  return type(triggers) == 'number' and triggers or math.max(WATERMARK, BULK_WATERMARK)
end

-- Other clients wait while a script runs, so a script about many records stops after a few milliseconds, and its caller
-- repeats it. From version 7 on Redis's time stands still while a script runs, but Lua has a clock; without either, the
-- quotas limit the time.
local MOST_MICROSECONDS = 3000
-- Records that are processed whatever the clock says: the process may have been suspended.
local FEW = 8
-- Returns a function that says whether the time is up. most: microseconds, if it is less than usual
local function stopwatch(most)
  local has_clock, seconds = pcall(function() return os.clock end)
  local function now()
    if has_clock and seconds then return seconds() * 1000000 end
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
  end
  local started = now()
  return function() return now() - started > (most or MOST_MICROSECONDS) end
end

local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- In microseconds, to order what happens within one millisecond.
local MOMENT = string.format('%.3f', clock[1] * 1000 + clock[2] / 1000)

local TIMELINE_MAX = 60
local RANK = { sent = 1, accepted = 2, expired = 3, undelivered = 4, delivered = 5 }
local CLAIMABLE = { queued = true, scheduled = true, retrying = true }
local LANE = { queued = 'send', scheduled = 'send', retrying = 'send',
               sending = 'watch', unknown = 'watch', sent = 'watch', accepted = 'watch' }

-- States that are counted when a message enters them.
local ENDS = { delivered = true, undelivered = true, expired = true, failed = true,
               cancelled = true, unknown = true }
-- States without an entry in `ends`: messages are deleted when they have been in them for the retention. Messages in
-- other states may wait for something.
local FINAL_STATES = { delivered = true, undelivered = true, expired = true, failed = true, cancelled = true }
-- Upper bounds of the histograms' buckets, in seconds.
local BUCKETS = { 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200 }

-- Appends a list to the answer of a script. unpack would overflow Lua's stack at some thousand values.
local function with_list(answer, list)
  for _, value in ipairs(list) do answer[#answer + 1] = value end
  return answer
end

local function key(kind, ...)
  if select('#', ...) == 1 then return NS .. ':' .. kind .. ':' .. ... end
  return table.concat({ NS, kind, ... }, ':')
end
local state_keys, due_keys = {}, {}
local function state_key(state)
  local name = state_keys[state]
  if not name then
    name = key('state', state)
    state_keys[state] = name
  end
  return name
end
local function due_key(lane)
  local name = due_keys[lane]
  if not name then
    name = key('due', lane)
    due_keys[lane] = name
  end
  return name
end

-- Waiting messages and events have two lanes each: 'send' and 'hook' for single messages, 'send_bulk' and 'hook_bulk'
-- for bulk (messages of send_many; the field `bulk` of their records is '1'), so that a single message never waits
-- behind a campaign. take_due.lua says how they share the broker's queues.
-- Older versions have one lane only. So bulk gets its own lane only while upkeep that reads it is running (which sets
-- `filled:lanes`); upkeep moves bulk that it finds in the other lane.
local bulk_has_lanes
local function lane_for(lane, bulk)
  if bulk ~= '1' then return lane end
  if bulk_has_lanes == nil then bulk_has_lanes = redis.call('EXISTS', key('filled', 'lanes')) == 1 end
  return bulk_has_lanes and lane .. '_bulk' or lane
end
