-- This folder is shared by every script of the ledger, one file after the other: see connection.py
-- for the order. A header sets the times, in milliseconds: GRACE, RETENTION, REPORT_WAIT, PARK_WAIT,
-- HOOK_LEASE; and the lengths of the broker's queues above which no trigger is added: WATERMARK,
-- BULK_WATERMARK.
-- Time is Redis's own, so that workers' clocks do not matter.
local NS, SEND_QUEUE, HOOK_QUEUE = KEYS[1], KEYS[2], KEYS[3]
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
-- Upper ends of the histograms' buckets, in seconds.
local BUCKETS = { 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200 }

local function key(...) return table.concat({ NS, ... }, ':') end
local function due_key(lane) return key('due', lane) end

-- A table of the named fields; a missing one is nil.
local function read(hash, ...)
  local names, values = { ... }, redis.call('HMGET', hash, ...)
  local found = {}
  for i, name in ipairs(names) do found[name] = values[i] or nil end
  return found
end

-- Counters live here, so that they are right whichever process is asked for them.
local function count(...)
  redis.call('HINCRBY', key('counts'), table.concat({ ... }, '|'), 1)
end

-- Counts a duration (ms) in a histogram.
local function observe(what, provider, took)
  local bucket = '+Inf'
  for _, seconds in ipairs(BUCKETS) do
    if took <= seconds * 1000 then bucket = seconds break end
  end
  count('took', what, provider, bucket)
  redis.call('HINCRBY', key('counts'), table.concat({ 'took_ms', what, provider }, '|'), took)
end
