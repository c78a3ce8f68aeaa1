-- Reads on in an index of messages, and returns those that match. It stops after a few milliseconds, so a call may
-- return none although there are more.
-- ARGV: name of the index, score and id of the last entry that was read (id '': begin with the first entry of that
--       score), lowest score, matches at most, states (JSON: state -> { } or { lowest, highest } time of entering it),
--       texts in the data (JSON: a list of lists, one text of each must occur)
-- Returns: score and id of the last entry that was read (id '': there are no more), entries that were read, ids...
local index, score, id = key(ARGV[1]), ARGV[2], ARGV[3]
local least, size = tonumber(ARGV[4]), tonumber(ARGV[5])
local states, texts = cjson.decode(ARGV[6]), cjson.decode(ARGV[7])
-- In one read, and in one call: where Lua has no clock, it limits the time.
local CHUNK, MOST_READ = 100, 2000

local function is_in_time(candidate, state)
  local bounds = states[state]
  if not bounds then return false end
  if #bounds == 0 then return true end
  local at = tonumber(redis.call('ZSCORE', state_key(state), candidate) or nil)
  return at ~= nil and at >= bounds[1] and at <= bounds[2]
end

local function has_texts(data)
  for _, alternatives in ipairs(texts) do
    local is_there = false
    for _, text in ipairs(alternatives) do
      if string.find(data, text, 1, true) then
        is_there = true
        break
      end
    end
    if not is_there then return false end
  end
  return true
end

local function matches(candidate)
  local hash = key('msg', candidate)
  if not is_in_time(candidate, redis.call('HGET', hash, 'state') or '') then return false end
  return #texts == 0 or has_texts(redis.call('HGET', hash, 'data') or '')
end

local found, number_read, out_of_time = {}, 0, stopwatch()
while true do
  local entries = page_of_index(index, score, id, least, CHUNK)
  for i = 1, #entries, 2 do
    id, score, number_read = entries[i], entries[i + 1], number_read + 1
    -- A record that cannot be read is returned: whoever reads it finds out what is wrong.
    local well, does = pcall(matches, id)
    if does or not well then found[#found + 1] = id end
    local is_over = #found >= size or number_read >= MOST_READ or number_read % FEW == 0 and out_of_time()
    if is_over then return with_list({ score, id, number_read }, found) end
  end
  if #entries < 2 * CHUNK then return with_list({ score, '', number_read }, found) end
end
