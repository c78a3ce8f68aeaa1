-- Counts messages of a tag by state, and those that left the queue lately. It stops after a few milliseconds; the caller
-- goes on where it stopped and adds up.
-- ARGV: tag, score and id of the last entry that was counted ('+inf' and '' to begin), since when messages count that
--       left the queue (ms; '': the last minute)
-- Returns: score and id of the last entry that was counted (id '': there are no more), that time, the time now,
--          messages that left the queue since then, the time of the first of them (or ''), messages that left it before
--          (those whose time is not known, too), damaged records, state, messages, state, messages ...
local index, score, id = key('tag', ARGV[1]), ARGV[2], ARGV[3]
local since = tonumber(ARGV[4]) or NOW - 60000
local CHUNK, MOST_READ = 100, 2000
local WAITS = { queued = true, scheduled = true, retrying = true, sending = true, cancelled = true }

-- When a message was sent, or failed; a time before `since` may be too late. nil: it waits, or was cancelled.
local function left_at(message, state, sent_at)
  if WAITS[state] then return nil end
  local entered = tonumber(sent_at or index_score(state_key(state), message)) or 0
  -- The time of sending of a delivered message is in its timeline only.
  if state ~= 'delivered' or entered < since then return entered end
  for _, line in ipairs(timeline_of(redis.call('HGET', key('msg', message), 'timeline')) or {}) do
    if line.state == 'sent' then sent_at = line.at end
  end
  return sent_at or entered
end

local counted, damaged, before, lately, first = {}, 0, 0, 0, nil
local function count_message(message)
  local state, sent_at = unpack(redis.call('HMGET', key('msg', message), 'state', 'sent_at'))
  if not state then return end -- an older version has deleted it, and left it in the index
  if not is_one_of(state, MESSAGE_STATES) then error('state is not a known one', 0) end
  local at = left_at(message, state, sent_at or nil)
  if at and at < since then
    before = before + 1
  elseif at then
    lately = lately + 1
    first = math.min(first or at, at)
  end
  counted[state] = (counted[state] or 0) + 1
end

local number_read, out_of_time, is_over = 0, stopwatch(), false
repeat
  local entries = page_of_index(index, score, id, -math.huge, CHUNK)
  for i = 1, #entries, 2 do
    id, score, number_read = entries[i], entries[i + 1], number_read + 1
    if not pcall(count_message, id) then damaged = damaged + 1 end
    is_over = number_read >= MOST_READ or number_read % FEW == 0 and out_of_time()
    if is_over then break end
  end
  if not is_over and #entries < 2 * CHUNK then
    id, is_over = '', true
  end
until is_over
local answer = { score, id, as_text(since), as_text(NOW), lately, first and as_text(first) or '', before, damaged }
for state, number in pairs(counted) do with_list(answer, { state, number }) end
return answer
