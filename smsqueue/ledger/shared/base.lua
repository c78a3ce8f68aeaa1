-- This folder is shared by every script of the ledger, one file after the other: see scripts.py
-- for the order. A header sets the times, in milliseconds: GRACE, RETENTION, REPORT_WAIT, PARK_WAIT,
-- HOOK_LEASE; the lengths of the broker's queues above which no trigger is added: WATERMARK,
-- BULK_WATERMARK; and bytes that the unhandled webhooks of a provider may hold: WEBHOOK_QUOTA.
-- Time is Redis's own, so that workers' clocks do not matter.
local NS, SEND_QUEUE, HOOK_QUEUE = KEYS[1], KEYS[2], KEYS[3]

-- Keys that many messages share and that no message depends on: indexes, pauses, counters. One of the
-- wrong type (a restore that went wrong, another program's key) is set aside, see damage.lua, and
-- begins anew: it must not make the messages fail that are to be noted in it.
local SHARED = { state = true, due = true, number = true, ends = true, event_ends = true,
                 pause = true, pauses = true, workers = true, counts = true, passed = true,
                 filled = true, full = true, bulk_out = true, health = true, ref = true, refs = true, parked = true, parts = true,
                 damaged = true, webhooks = true, webhook_bytes = true, kept = true,
                 unrouted = true, unrouted_why = true, sweeper = true }
local server, set_aside = redis, nil

-- Every script calls Redis through this. Errors are raised as plain text, in all versions of Redis.
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

-- Triggers in a queue of the broker. A key that is no list counts as full: this is asked for in the middle of
-- transitions, and an error must not end one halfway.
local function triggers_in(queue)
  local found = redis.pcall('LLEN', queue)
  return type(found) == 'number' and found or math.max(WATERMARK, BULK_WATERMARK)
end

-- Others wait for Redis as long as a script runs: what goes through many records stops after a few
-- milliseconds, and whoever runs it runs it again. From version 7 on Redis's own time stands still while
-- a script runs, but Lua has a clock; where there is neither, the quotas are the bound.
local MOST_MICROSECONDS = 3000
-- So many records are gone through whatever the clock says: the process may have been asleep.
local FEW = 8
-- Returns a function that says whether the time is up.
local function stopwatch()
  local has_clock, seconds = pcall(function() return os.clock end)
  local function now()
    if has_clock and seconds then return seconds() * 1000000 end
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
  end
  local started = now()
  return function() return now() - started > MOST_MICROSECONDS end
end

local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- To the microsecond, for what may happen within the same millisecond.
local MOMENT = string.format('%.3f', clock[1] * 1000 + clock[2] / 1000)

local TIMELINE_MAX = 60
local RANK = { sent = 1, accepted = 2, expired = 3, undelivered = 4, delivered = 5 }
local CLAIMABLE = { queued = true, scheduled = true, retrying = true }
local LANE = { queued = 'send', scheduled = 'send', retrying = 'send',
               sending = 'watch', unknown = 'watch', sent = 'watch', accepted = 'watch' }

-- States that are news worth counting: the end of a message, or of what is known of it.
local ENDS = { delivered = true, undelivered = true, expired = true, failed = true,
               cancelled = true, unknown = true }
-- States that need no entry in `ends`: their messages are forgotten when they have been in them for the retention.
-- Those of other states may wait for something.
local FINAL_STATES = { delivered = true, undelivered = true, expired = true, failed = true, cancelled = true }
-- Upper ends of the histograms' buckets, in seconds.
local BUCKETS = { 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200 }

-- The answer of a script, with a list behind it. Not by unpack: Lua's stack takes some thousand
-- values, then the script fails in its middle.
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

-- Messages that wait and events have two lanes each: 'send' and 'hook' are for single messages, and
-- 'send_bulk' and 'hook_bulk' for what was sent as one of many (the field `bulk` of the record is '1'), so that a
-- single message never waits behind a campaign. take.lua says how they share.
-- Older versions know one lane only. So what is bulk has a lane of its own only while upkeep that looks
-- there is running (it says so in `filled:lanes`); what it finds of bulk in the other lane it moves.
local bulk_has_lanes
local function lane_for(lane, bulk)
  if bulk ~= '1' then return lane end
  if bulk_has_lanes == nil then bulk_has_lanes = redis.call('EXISTS', key('filled', 'lanes')) == 1 end
  return bulk_has_lanes and lane .. '_bulk' or lane
end
