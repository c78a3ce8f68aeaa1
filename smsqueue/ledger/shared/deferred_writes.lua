-- Deferred writes. A script that defers its writes reads each hash once, and writes its changes at its end: one command
-- for each hash, index and counter, for all items of a group together. So a message costs a few commands instead of
-- dozens. Until write_all() such a script reads and writes records, indexes and counters only by these functions, which
-- see the changes. In other scripts (scripts.py says which) they read and write at once.
local defers_writes = false

-- The names that fields had in former versions. While processes of such a version may run beside this one, a value is
-- stored under both names, and the former one counts, because an older process sets and removes only that one. So all
-- scripts read and write these fields by the functions below, even if they do not defer their writes.
local FORMER_NAMES = {
  published_at = 'out', waiting_for = 'behind', wait_queue = 'line', checked_at = 'looked', validity_left_ms = 'left',
  first_attempt = 'first', awaited_attempt = 'gathers', lost_workers = 'lapses', times_asked = 'asks',
  ask_after_ms = 'ask', next_check_at = 'looks',
}
local NEW_NAMES = {}
for new, former in pairs(FORMER_NAMES) do NEW_NAMES[former] = new end
-- The name that counts.
local function stored_name(field) return FORMER_NAMES[field] or field end
local hashes, indexes, counters = {}, {}, {}
-- Commands that confirm the other writes: they run after them, and only if none of them failed.
local last_commands = {}
local function call_last(...)
  if not defers_writes then return redis.call(...) end
  last_commands[#last_commands + 1] = { ... }
end

-- The value of a string key, also if call_last() will set it.
local function value_of(name)
  for _, command in ipairs(last_commands) do
    if command[1] == 'SET' and command[2] == name then return command[3] end
  end
  return redis.call('GET', name)
end

-- A number in the format of Redis.
local texts = {}
local function as_text(value)
  if type(value) == 'string' then return value end
  if type(value) ~= 'number' then error('ERR neither a text nor a number is to be written', 0) end
  local text = texts[value]
  if not text then
    text = string.format('%.17g', value)
    texts[value] = text
  end
  return text
end

-- The fields of a hash by their new names; and as changes (false) those that an older process has removed.
local function fields_in_redis(hash)
  local list, fields, removed = redis.call('HGETALL', hash), {}, {}
  for i = 1, #list, 2 do
    local field = list[i]
    local new = NEW_NAMES[field]
    if new then
      fields[new], removed[new] = list[i + 1], nil
    elseif not FORMER_NAMES[field] then
      fields[field] = list[i + 1]
    elseif not fields[field] then
      removed[field] = false
    end
  end
  return fields, removed
end

-- A hash: its `fields` in Redis, and its `changes`: new values, false for removed fields.
local function loaded(hash)
  local known = hashes[hash]
  if not known then
    local fields, removed = fields_in_redis(hash)
    known = { fields = fields, changes = removed }
    hashes[hash] = known
  end
  return known
end

local function current(known, field)
  local value = known.changes[field]
  if value == nil then return known.fields[field] end
  return value or nil
end

-- A table of the named fields, with their changes; a missing field is nil. It may have other fields. Do not modify it.
local function read(hash, ...)
  local result = {}
  if defers_writes then
    local known = loaded(hash)
    if next(known.changes) == nil then return known.fields end
    for i = 1, select('#', ...) do
      local name = select(i, ...)
      result[name] = current(known, name)
    end
    return result
  end
  local names, stored = { ... }, {}
  for i, name in ipairs(names) do stored[i] = stored_name(name) end
  local values = redis.call('HMGET', hash, unpack(stored))
  for i, name in ipairs(names) do result[name] = values[i] or nil end
  return result
end

-- All fields. Do not modify the table.
local function read_all(hash)
  if not defers_writes then return (fields_in_redis(hash)) end
  local known, result = loaded(hash), {}
  if next(known.changes) == nil then return known.fields end
  for name in pairs(known.fields) do result[name] = current(known, name) end
  for name, value in pairs(known.changes) do result[name] = value or nil end
  return result
end

-- One field; nil if it is missing.
local function get(hash, field)
  if defers_writes then return current(loaded(hash), field) end
  return redis.call('HGET', hash, stored_name(field)) or nil
end

-- Sets fields: name, value, name, value ...
local function set(hash, ...)
  if not defers_writes then
    local values = { ... }
    for i = 1, #values, 2 do
      local former = FORMER_NAMES[values[i]]
      if former then with_list(values, { former, values[i + 1] }) end
    end
    return redis.call('HSET', hash, unpack(values))
  end
  local changes = loaded(hash).changes
  for i = 1, select('#', ...), 2 do
    local field, value = select(i, ...)
    changes[field] = as_text(value)
  end
end

local function unset(hash, ...)
  if not defers_writes then
    local names = { ... }
    for _, field in ipairs({ ... }) do names[#names + 1] = FORMER_NAMES[field] end
    return redis.call('HDEL', hash, unpack(names))
  end
  local known = loaded(hash)
  for i = 1, select('#', ...) do
    local field = select(i, ...)
    if current(known, field) then known.changes[field] = false end
  end
end

-- Adds to a field that holds an integer; returns the sum.
local function increase(hash, field, by)
  if not defers_writes then
    local sum = redis.call('HINCRBY', hash, stored_name(field), by)
    if FORMER_NAMES[field] then redis.call('HSET', hash, field, sum) end
    return sum
  end
  local text = get(hash, field) or '0'
  if not string.match(text, '^%-?%d+$') then error('ERR hash value is not an integer', 0) end
  local sum = tonumber(text) + by
  set(hash, field, sum)
  return sum
end

local function delete_hash(hash)
  redis.call('DEL', hash)
  hashes[hash] = defers_writes and { fields = {}, changes = {} } or nil
end

-- Declares a hash that does not exist yet, so that it is not read.
local function new_hash(hash)
  if defers_writes and not hashes[hash] then hashes[hash] = { fields = {}, changes = {} } end
end

-- Sets the seconds after which a hash is deleted that has been written.
local function expire(hash, seconds)
  if not defers_writes then return redis.call('EXPIRE', hash, seconds) end
  loaded(hash).expires = seconds
end

-- A score or an increment. An error here concerns one item, a later one the whole group.
local function checked_number(value)
  local number = tonumber(value)
  if not (number and math.abs(number) < 2 ^ 53) then error('ERR a time or a count is not a number', 0) end
  return number
end

-- Records the score of an entry of an index; false: the entry is to be removed.
local function set_entry(name, id, score)
  local entries = indexes[name]
  if not entries then
    entries = {}
    indexes[name] = entries
  end
  entries[id] = score
end

local function index_add(name, score, id)
  score = checked_number(score)
  if defers_writes then return set_entry(name, id, score) end
  redis.call('ZADD', name, score, id)
end

local function index_remove(name, id)
  if defers_writes then return set_entry(name, id, false) end
  redis.call('ZREM', name, id)
end

-- The score of an id in an index, in the format of Redis; nil: there is none.
local function index_score(name, id)
  local entry = indexes[name] and indexes[name][id]
  if entry == nil then return redis.call('ZSCORE', name, id) or nil end
  return entry and as_text(entry) or nil
end

-- Counters are in Redis, so that every process reports the same. A damaged one restarts at 0; while Redis refuses
-- writes (because it is full, for example) they stay as they are.
local function add_up_now(name, number)
  local answer = redis.pcall('HINCRBY', key('counts'), name, number)
  if type(answer) ~= 'table' or not answer.err then return end
  for _, cause in ipairs({ 'WRONGTYPE', 'not an integer', 'overflow' }) do
    if string.find(answer.err, cause, 1, true) then
      redis.call('HDEL', key('counts'), name) -- sets the whole hash aside if it has the wrong type
      redis.call('HINCRBY', key('counts'), name, number)
      return
    end
  end
end

local function add_up(name, number)
  number = checked_number(number)
  if not defers_writes then return add_up_now(name, number) end
  counters[name] = (counters[name] or 0) + number
end

local function count(name, ...)
  if select('#', ...) == 1 then return add_up(name .. '|' .. ..., 1) end
  add_up(table.concat({ name, ... }, '|'), 1)
end

-- Counts a duration (ms) in a histogram.
local function observe(what, provider, took)
  local bucket = '+Inf'
  took = math.floor(took)
  for _, seconds in ipairs(BUCKETS) do
    if took <= seconds * 1000 then bucket = seconds break end
  end
  add_up('took|' .. what .. '|' .. provider .. '|' .. bucket, 1)
  add_up('took_ms|' .. what .. '|' .. provider, took)
end

local function write_hash(hash, known)
  local values, gone = {}, {}
  for field, value in pairs(known.changes) do
    local former = FORMER_NAMES[field]
    if value then
      values[#values + 1] = field
      values[#values + 1] = value
      if former then
        values[#values + 1] = former
        values[#values + 1] = value
      end
    else
      gone[#gone + 1] = field
      gone[#gone + 1] = former
    end
  end
  if #values > 0 then redis.call('HSET', hash, unpack(values)) end
  if #gone > 0 then redis.call('HDEL', hash, unpack(gone)) end
  if known.expires then redis.call('EXPIRE', hash, known.expires) end
end

local function write_index(name, entries)
  local added, removed = {}, {}
  -- Lua's stack holds some thousand values.
  local function send(command, list, most)
    if #list > most then
      redis.call(command, name, unpack(list))
      return {}
    end
    return list
  end
  for id, score in pairs(entries) do
    if score then
      added[#added + 1] = as_text(score)
      added[#added + 1] = id
    else
      removed[#removed + 1] = id
    end
    added, removed = send('ZADD', added, 1000), send('ZREM', removed, 1000)
  end
  send('ZADD', added, 0)
  send('ZREM', removed, 0)
end

-- Writes all changes and drops the cache. A write that fails does not stop the others, which may be of other items.
local function write_all()
  local changed_hashes, changed_indexes, changed_counters, commands = hashes, indexes, counters, last_commands
  hashes, indexes, counters, last_commands = {}, {}, {}, {}
  local failure
  local function try(write, ...)
    local well, message = pcall(write, ...)
    if not well then failure = failure or tostring(message) end
  end
  for hash, known in pairs(changed_hashes) do try(write_hash, hash, known) end
  -- States first: due sets that are set aside are rebuilt from them.
  local due = due_key('')
  for _, is_due in ipairs({ false, true }) do
    for name, entries in pairs(changed_indexes) do
      if (string.sub(name, 1, #due) == due) == is_due then try(write_index, name, entries) end
    end
  end
  for name, number in pairs(changed_counters) do try(add_up_now, name, number) end
  if failure then error(failure, 0) end
  for _, command in ipairs(commands) do redis.call(unpack(command)) end
end
