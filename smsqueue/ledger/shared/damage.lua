-- Damaged records: fields or keys that no version of smsqueue writes like this. They stop nothing else: a damaged record
-- is removed from the due sets and listed in `damaged`, until an operator repairs or removes it.
local MOST_DAMAGED, ASK_AGAIN = 1000, 3600000
local MESSAGE_STATES = { 'queued', 'scheduled', 'retrying', 'sending', 'sent', 'accepted', 'delivered',
                         'undelivered', 'expired', 'unknown', 'failed', 'cancelled' }
local EVENT_STATES = { 'waiting', 'parked', 'running', 'done', 'dead', 'unheard' }
local RECORDS = {
  msg = { states = MESSAGE_STATES, lanes = { 'send', 'send_bulk', 'watch', 'ask' },
          whole = { 'attempt', 'tries', 'lost_workers', 'times_asked', 'first_attempt', 'awaited_attempt', 'resent' },
          numbers = { 'not_before', 'expires', 'since', 'calling', 'called', 'sent_at', 'pin_until',
                      'pin_ref', 'published_at', 'checked_at', 'ask_after_ms', 'validity_left_ms' } },
  event = { states = EVENT_STATES, lanes = { 'hook', 'hook_bulk' }, whole = { 'tries' },
            numbers = { 'lease', 'not_before', 'published_at', 'since' } },
}
local PAUSE_NUMBERS = { 'until', 'since', 'times', 'probe_until', 'next_check_at', 'rerouted', 'single', 'bulk',
                        'ends', 'auto_until', 'paused_at' }

local function is_one_of(value, list)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

local function is_whole(text)
  return text == '0' or #text < 10 and string.match(text, '^[1-9]%d*$') ~= nil
end

-- A time or a duration in milliseconds, as the scripts write them.
local function is_number(text)
  return #text < 26 and string.match(text, '^%-?%d+%.?%d*$') ~= nil
end

-- The lines of a timeline; nil if it is not a JSON list of lines that have a time.
local function timeline_of(text)
  local well, lines = pcall(cjson.decode, text)
  if not well or type(lines) ~= 'table' or next(lines) ~= nil and lines[1] == nil then return nil end
  for _, line in ipairs(lines) do
    if type(line) ~= 'table' or type(line.at) ~= 'number' then return nil end
  end
  return lines
end

-- Raises an error if the fields of a record are damaged in a way that would fail only in the worker, or repeat for ever.
local function check_record(kind, m)
  local about = RECORDS[kind]
  if not is_one_of(m.state, about.states) then error('state is not a known one', 0) end
  for _, field in ipairs(about.whole) do
    if m[field] and not is_whole(m[field]) then error(field .. ' is not a whole number', 0) end
  end
end

-- The invalid fields of a record: a list of their names, and the causes by name. nil, cause: it is not a record at all.
-- Python checks the message and the event's data.
local function bad_fields(kind, id)
  local name = key(kind, id)
  local known = hashes[name]
  local type_of = known and next(known.fields) and 'hash' or redis.call('TYPE', name).ok
  if type_of ~= 'hash' then return nil, 'it is a ' .. type_of .. ' in Redis, not a hash' end
  local about, m, bad = RECORDS[kind], read_all(name), {}
  local function add(field, cause)
    bad[#bad + 1] = field
    bad[field] = cause
  end
  local state = m.state
  if not state then add('state', 'state is missing')
  elseif not is_one_of(state, about.states) then add('state', 'state is not a known one') end
  for _, field in ipairs(about.whole) do
    local value = m[field]
    if value and not is_whole(value) then add(field, field .. ' is not a whole number') end
  end
  for _, field in ipairs(about.numbers) do
    local value = m[field]
    if value and not is_number(value) then add(field, field .. ' is not a number') end
  end
  if kind == 'msg' then
    for field, value in pairs(m) do
      if string.sub(field, 1, 6) == 'parts.' then
        local well, parts = pcall(cjson.decode, value)
        local names_another = string.match(value, '^=%d+$')
        if not names_another and not (well and type(parts) == 'table' and type(parts.ids) == 'table') then
          add(field, 'the reports of its parts cannot be read')
        end
      end
    end
    local text = m.timeline
    local lines = text and timeline_of(text)
    if not text then add('timeline', 'timeline is missing')
    elseif not lines then add('timeline', 'timeline is not a JSON list of lines')
    elseif #lines == 0 then add('timeline', 'timeline is empty') end
  else
    local done = redis.call('TYPE', key('done', id)).ok
    if done ~= 'set' and done ~= 'none' then
      add('done', 'the names of the handlers that succeeded are a ' .. done .. ' in Redis, not a set')
    end
  end
  return bad
end

-- What is wrong with a record; nil: nothing, or there is no record.
local function cause_of(kind, id)
  local bad, cause = bad_fields(kind, id)
  if bad then return bad[1] and bad[bad[1]] end
  if redis.call('EXISTS', key(kind, id)) == 0 then return nil end
  return cause
end

-- Removes a damaged record from all indexes of due and listed records. False: there are too many; it is tried again in
-- an hour.
local function put_aside(kind, id, cause)
  local about, hash = RECORDS[kind], key('damaged')
  if redis.call('HLEN', hash) >= MOST_DAMAGED and redis.call('HEXISTS', hash, id) == 0 then
    for _, lane in ipairs(about.lanes) do
      redis.call('ZADD', due_key(lane), 'XX', 'GT', NOW + ASK_AGAIN, id)
    end
    return false
  end
  local where, was = {}, nil
  for _, lane in ipairs(about.lanes) do
    if redis.call('ZREM', due_key(lane), id) == 1 then where[#where + 1] = lane end
  end
  for _, state in ipairs(about.states) do
    if redis.call('ZREM', key('state', state), id) == 1 then was = state end
  end
  redis.call('HSET', hash, id, cjson.encode({ kind = kind, cause = cause, at = NOW, was = was,
                                              lane = where[1] }))
  return true
end

-- Rebuilds a due set from the states. The due times are lost: everything is due at once, except messages that are being
-- sent, which are due after more than any lease. Bulk enters the lane of single messages and is moved from there.
local WAITS_IN = { send = { 'queued', 'scheduled', 'retrying' }, hook = { 'waiting', 'parked', 'running' },
                   watch = { 'sent', 'accepted', 'unknown' } }
local function rebuild(lane)
  lane = string.gsub(lane, '_bulk$', '')
  local states = {}
  for i, state in ipairs(WAITS_IN[lane] or {}) do
    states[i] = key('state', state)
    -- A state of the wrong type would fail here, after the due set has been renamed.
    local kind_of_key = redis.call('TYPE', states[i]).ok
    if kind_of_key ~= 'zset' and kind_of_key ~= 'none' then set_aside(states[i]) end
  end
  if #states > 0 then redis.call('ZUNIONSTORE', due_key(lane), #states, unpack(states)) end
  if lane == 'watch' then
    for _, id in ipairs(redis.call('ZRANGE', key('state', 'sending'), 0, -1)) do
      redis.call('ZADD', due_key('watch'), NOW + ASK_AGAIN, id)
    end
  end
end

-- Renames a key of the wrong type, so that an operator can inspect it, and starts over without it.
function set_aside(name)
  local short = string.sub(name, #NS + 2)
  local kind = redis.call('TYPE', name).ok
  if kind == 'none' then return end
  local copy = key('aside', short)
  server.call('RENAME', name, copy)
  server.call('PEXPIRE', copy, RETENTION)
  local entry = { kind = 'key', cause = 'it was a ' .. kind .. ' in Redis; set aside as ' .. copy,
                  at = NOW }
  if redis.call('HLEN', key('damaged')) < MOST_DAMAGED then
    redis.call('HSET', key('damaged'), short, cjson.encode(entry))
  end
  local lane = string.match(short, '^due:(.*)$')
  if lane then rebuild(lane) end
end

-- Indexes with fixed names, by type.
local INDEXES = {
  zset = { 'due:send', 'due:send_bulk', 'due:watch', 'due:ask', 'due:hook', 'due:hook_bulk', 'ends',
           'event_ends', 'unrouted', 'audit',
           'due:release', 'samples', 'optouts' },
  hash = { 'held', 'counts', 'workers', 'damaged', 'unrouted_why', 'webhook_bytes' },
  set = { 'pauses' },
}

-- Sets indexes of a wrong type aside, before readers fail at them.
local function check_indexes()
  for _, states in ipairs({ MESSAGE_STATES, EVENT_STATES }) do
    for _, state in ipairs(states) do INDEXES.zset[#INDEXES.zset + 1] = 'state:' .. state end
  end
  for wanted, names in pairs(INDEXES) do
    for _, short in ipairs(names) do
      local name = key(short)
      local kind_of_key = redis.call('TYPE', name).ok
      if kind_of_key ~= wanted and kind_of_key ~= 'none' then set_aside(name) end
    end
  end
  -- It expires, unless a restore or another program has removed its time to live: then nothing would be published.
  for _, queue in ipairs({ 'send', 'hook' }) do
    if redis.pcall('PTTL', key('filled', queue)) == -1 then redis.call('DEL', key('filled', queue)) end
  end
end

-- Deletes damaged values that many messages share. Returns whether there were any.
-- args: the arguments of the script
local function mend_shared(args)
  local mended = false
  for _, queue in ipairs({ 'send', 'hook' }) do
    for _, name in ipairs({ key('passed', queue), key('filled', queue) }) do
      local value = redis.call('GET', name)
      if value and not is_number(value) then
        redis.call('DEL', name)
        mended = true
      end
    end
  end
  local function check(short, numbers)
    for _, field in ipairs(numbers) do
      local value = redis.call('HGET', key(short), stored_name(field))
      if value and not is_number(value) then
        redis.call('DEL', key(short))
        redis.call('HSET', key('damaged'), short, cjson.encode(
          { kind = 'key', cause = field .. ' was not a number; it was deleted', at = NOW }))
        mended = true
        return
      end
    end
  end
  local providers = redis.call('SMEMBERS', key('pauses'))
  for _, name in ipairs(args) do
    if #name < 100 then providers[#providers + 1] = name end
  end
  local well, m = pcall(read, key('msg', args[1] or ''), 'provider', 'waiting_for')
  if well then
    for name in string.gmatch((m.provider or '') .. ' ' .. (m.waiting_for or ''), '%S+') do
      providers[#providers + 1] = name
    end
  end
  for _, name in ipairs(providers) do
    check('pause:' .. name, PAUSE_NUMBERS)
    check('health:' .. name, { 'since', 'times' })
  end
  return mended
end

-- Transient Redis errors, as opposed to damaged records.
local TRANSIENT = { 'OOM', 'READONLY', 'NOREPLICAS', 'MISCONF', 'NOPERM', 'BUSY', 'LOADING', 'MASTERDOWN' }
local function is_transient(message)
  for _, word in ipairs(TRANSIENT) do
    if string.find(message, word, 1, true) then return true end
  end
  return false
end

-- Calls a function for one of many records. If it fails because the record is damaged, the record is set aside; if it
-- fails for another reason, the record is tried again in a minute. Either way the script continues with the others.
-- `failed` collects: id, cause, 1 (set aside) or 0.
local function isolated(kind, id, failed, run)
  local well, message = pcall(run)
  if well then return true end
  message = tostring(message)
  write_all()
  if is_transient(message) then error(message, 0) end
  if mend_shared(ARGV) and pcall(run) then return true end
  local cause = cause_of(kind, id)
  local aside = cause and put_aside(kind, id, cause)
  if not aside then
    for _, lane in ipairs(RECORDS[kind].lanes) do
      redis.call('ZADD', due_key(lane), 'XX', 'GT', NOW + GRACE, id)
    end
  end
  failed[#failed + 1] = id
  failed[#failed + 1] = cause or message
  failed[#failed + 1] = aside and 1 or 0
  return false
end

-- Runs a script, for one item of a group if it has several. Returns: its answer | nil, the error
-- kind: kind of the record that the first argument names, or ''
local function protected(kind, args, run)
  local others = #last_commands
  local well, answer = pcall(run, args)
  if well then return answer end
  local message = tostring(answer)
  -- Keep what was done before it failed; what follows reads Redis again.
  for i = #last_commands, others + 1, -1 do last_commands[i] = nil end
  local written, why = pcall(write_all)
  if not written then message = tostring(why) end
  if not is_transient(message) then
    if mend_shared(args) then
      well, answer = pcall(run, args)
      if well then return answer end
      message = tostring(answer)
    end
    local cause = kind ~= '' and cause_of(kind, args[1])
    if cause then
      put_aside(kind, args[1], cause)
      return nil, 'DAMAGED ' .. cause
    end
  end
  return nil, string.match(message, '^%u+ ') and message or 'ERR ' .. message
end

-- Runs a script without groups.
local function run_alone(kind, run)
  local answer, failure = protected(kind, ARGV, run)
  return failure and redis.error_reply(failure) or answer
end

-- The same for a script that defers its writes.
local function run_and_write(kind, run)
  defers_writes = true
  return run_alone(kind, function(args)
    local answer = run(args)
    write_all()
    return answer
  end)
end

-- Runs a script for each item of a group. An error of one item changes nothing for the others. When the time is up, the
-- rest is left to the next call.
-- ARGV: the number of arguments of one item; the arguments of the first item, of the second ...
-- Returns: for each item { answer } | { '', error }
local function run_group(kind, run)
  local width, answers, out_of_time = tonumber(ARGV[1]), {}, stopwatch()
  defers_writes = true
  for first = 2, #ARGV, width do
    if #answers >= FEW and out_of_time() then break end
    local args = { unpack(ARGV, first, first + width - 1) }
    local answer, failure = protected(kind, args, run)
    answers[#answers + 1] = failure and { '', failure } or { answer }
  end
  write_all()
  return answers
end
