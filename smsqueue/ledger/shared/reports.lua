-- The rank of a message's state. Ends without a provider (failed, cancelled, expired before sending) rank below every
-- report.
local function rank_of(state, reported)
  if state == 'expired' and reported ~= 'expired' then return 0 end
  return RANK[state] or 0
end

-- Ids whose reports are kept for one attempt; no SMS has more parts.
local MOST_PARTS = 255

-- Reports of an attempt's parts. `ids`: by the provider's id 0 (no report), 1 (the part was accepted) or 2 (it was
-- delivered); `complete`: the provider's answer named these ids, so there are no others; else they come from reports;
-- `guess`: how many parts the text has by our count, if reports are about parts and no answer named their ids.
-- `complete` was `told` in former versions: it is stored under both names, as the fields in FORMER_NAMES are.
local function decode_parts(text)
  local parts = cjson.decode(text)
  parts.complete = parts.told
  return parts
end

local function encode_parts(parts)
  parts.told = parts.complete
  return cjson.encode(parts)
end

-- The reports of an attempt's parts; nil: it is not known to have several.
local function parts_of(id, attempt, m)
  local hash = key('msg', id)
  local text = get(hash, 'parts.' .. attempt)
  if text and string.sub(text, 1, 1) == '=' then -- the attempt that repeated this one
    text = get(hash, 'parts.' .. string.sub(text, 2))
  end
  if text then return decode_parts(text) end
  if not (m.sent_at and attempt == tonumber(m.attempt) and string.find(m.msgid or '', '^%[')) then
    return nil
  end
  -- Settled by a version that stored the ids only.
  local parts, number = { ids = {}, complete = true }, 0
  local well, pids = pcall(cjson.decode, m.msgid)
  for _, pid in ipairs(well and pids or {}) do
    if type(pid) == 'number' then pid = string.format('%.0f', pid) end
    if type(pid) == 'string' and pid ~= '' and not parts.ids[pid] then
      number = number + 1
      parts.ids[pid] = 0
    end
  end
  return number > 1 and parts or nil
end

-- The state of an attempt by the reports of its parts; nil: there are none. Failures of parts are not counted here, see
-- reported_state.
local function state_of_parts(parts)
  local number, taken, delivered = 0, 0, 0
  for _, level in pairs(parts.ids) do
    number = number + 1
    if level > 0 then taken = taken + 1 end
    if level == 2 then delivered = delivered + 1 end
  end
  if not parts.complete then number = parts.guess or 1 end
  if delivered >= number then return 'delivered' end
  if taken >= number then return 'accepted' end
  return taken > 0 and 'sent' or nil
end

local function keep_parts(id, attempt, parts)
  local hash = key('msg', id)
  local field = 'parts.' .. attempt
  local text = get(hash, field)
  if text and string.sub(text, 1, 1) == '=' then field = 'parts.' .. string.sub(text, 2) end
  if parts then
    set(hash, field, encode_parts(parts))
  else
    unset(hash, field)
  end
end

-- The state of an attempt after a report, which may be about one of its parts: delivered when all parts are, accepted
-- when all were accepted, undelivered or expired as soon as one part is. It never decreases, in whatever order the
-- reports come.
-- Returns: the state (nil: unknown until the provider's answer names the parts), whether the report is about a part
local function reported_state(id, attempt, state, m, pids, guess)
  if #pids == 0 or m.reported == 'delivered' then return state, false end
  local attempts, parts = tonumber(m.attempt), parts_of(id, attempt, m)
  -- The provider's answer is still awaited by a worker, whose settle counts the parts.
  local awaited = m.state == 'sending' and m.calling and tonumber(m.awaited_attempt) == attempts and
      (attempt == attempts or attempt == tonumber(m.pin_ref))
  if not parts then
    local answered = m.sent_at and attempt == attempts -- with one id
    if not awaited and (answered or not guess) then return state, false end
    parts = { ids = {} }
  end
  -- A parked report was recorded before the text was known.
  if guess then parts.guess = math.max(guess, parts.guess or 1) end
  local number = 0
  for _ in pairs(parts.ids) do number = number + 1 end
  for _, pid in ipairs(pids) do
    local level = parts.ids[pid]
    if parts.complete and not level then
      -- Not one of its parts: the report is about the message, or about a part that counts if it failed.
      if not guess then return state, false end
    elseif level or number < MOST_PARTS then
      number = level and number or number + 1
      parts.ids[pid] = math.max(level or 0, state == 'delivered' and 2 or 1)
    end
  end
  local now = state_of_parts(parts)
  local waits = awaited and not parts.complete
  -- A delivered message needs no more reports.
  keep_parts(id, attempt, (waits or now ~= 'delivered') and parts or nil)
  local several = parts.complete or (parts.guess or 1) > 1
  if state == 'expired' or state == 'undelivered' then return state, several end
  if waits then return nil, several end
  return now, several
end

-- Applies the state of an attempt to its message. An attempt of an earlier generation counts only if it was delivered,
-- since an operator chose to send again.
local function advance(id, attempt, state, provider, m)
  local hash = key('msg', id)
  if attempt < tonumber(m.first_attempt or 1) and state ~= 'delivered' then return false end
  if RANK[state] <= (RANK[m.reported] or 0) then return false end
  set(hash, 'reported', state)
  if m.state == 'sending' then return false end -- the settle will take it into account
  local waits = CLAIMABLE[m.state]
  if waits and (state == 'expired' or state == 'undelivered') then return false end
  if RANK[state] <= rank_of(m.state, m.reported) then return false end
  enter(id, m.state, state, report_look(state, m.report), nil, provider)
  -- `sent_at` is the time of the last attempt; that of an earlier one is not known.
  if state == 'delivered' and m.sent_at and attempt == tonumber(m.attempt) then
    observe('delivered', provider, math.max(0, NOW - m.sent_at))
  end
  if state == 'delivered' then unset(hash, 'sent_at') end
  return true
end

local function read_reported(id)
  return read(key('msg', id), 'state', 'reported', 'first_attempt', 'report', 'sent_at', 'attempt',
              'calling', 'awaited_attempt', 'pin_ref', 'msgid')
end

-- Does a report change its message? An attempt has few such reports, however many are sent: each one raises the state of
-- the attempt or of one of its parts.
local function is_news(id, attempt, state, pids, guess)
  local m = read_reported(id)
  if not m.state or not RANK[state] or RANK[state] <= (RANK[m.reported] or 0) then return false end
  if attempt < tonumber(m.first_attempt or 1) and state ~= 'delivered' then return false end
  local parts, number = #pids > 0 and parts_of(id, attempt, m), 0
  if not parts or state == 'expired' or state == 'undelivered' then return true end
  for _ in pairs(parts.ids) do number = number + 1 end
  for _, pid in ipairs(pids) do
    local level = parts.ids[pid]
    if level then
      if level < (state == 'delivered' and 2 or 1) then return true end
    elseif parts.complete then
      if not guess then return true end
    elseif number < MOST_PARTS then
      return true
    end
  end
  return false
end

-- Applies a report to its message. Returns whether its state changed.
-- pids: the provider's ids in the report; guess: parts of the message's text, if the report is about one part, else nil;
-- quiet: without a line in the timeline
local function apply_report(id, attempt, state, provider, code, pids, guess, quiet)
  local m = read_reported(id)
  if not m.state then return false end
  local now, part = reported_state(id, attempt, state, m, pids, guess)
  local old = attempt < tonumber(m.first_attempt or 1) and state ~= 'delivered'
  local why = old and 'report of an earlier sending' or part and 'report of a part' or 'report'
  if not quiet then
    note(id, { state = state, why = why, provider = provider, attempt = attempt,
               code = code ~= '' and code or nil })
  end
  return now and advance(id, attempt, now, provider, m) or false
end

-- Counts the parts of an attempt that has ended: the ids of the provider's answer say how many there are, and their
-- reports so far count. Repeating it changes nothing.
-- pids: these ids; empty: the answer had none
-- repeated: the attempt that this one repeated, whose reports may be its own; nil: none
local function count_parts(id, attempt, pids, provider, repeated)
  local hash = key('msg', id)
  -- At most one id and no reports of parts: the usual message of one part.
  if #pids <= 1 and not repeated and not get(hash, 'parts.' .. attempt) then return end
  local m = read_reported(id)
  local function kept(number)
    local text = number and get(hash, 'parts.' .. number)
    return text and string.sub(text, 1, 1) ~= '=' and decode_parts(text) or { ids = {} }
  end
  local own, earlier = kept(attempt), kept(repeated)
  local parts = { ids = {}, complete = #pids > 0, guess = own.guess or earlier.guess }
  local number, whole = 0, 0 -- whole: as a level, what was reported of the message itself
  for _, pid in ipairs(pids) do
    if not parts.ids[pid] then number = number + 1 end
    parts.ids[pid] = 0
  end
  for _, known in ipairs({ own, earlier }) do
    for pid, level in pairs(known.ids) do
      if parts.ids[pid] or not parts.complete then
        parts.ids[pid] = math.max(parts.ids[pid] or 0, level)
      elseif number == 1 or not known.guess then
        whole = math.max(whole, level)
      end
    end
  end
  if own.complete and not parts.complete then return end
  local now = state_of_parts(parts)
  if whole == 2 then now = 'delivered' end
  if whole == 1 and now ~= 'delivered' then now = 'accepted' end
  local several = number > 1 or not parts.complete and (parts.guess or 1) > 1
  if repeated and several then set(hash, 'parts.' .. repeated, '=' .. attempt) end
  keep_parts(id, attempt, several and now ~= 'delivered' and parts or nil)
  if now then advance(id, attempt, now, provider, m) end
end

-- Marks of a message's recorded reports, to recognize repeated ones. The first marks are in the message's record, since a
-- separate key takes several times the memory. They are long enough to differ among so few.
local MARK_LENGTH, MOST_MARKS = 12, 16
local function is_marked(id, repetition)
  local well, marks = pcall(get, key('msg', id), 'seen')
  return well and marks and string.find(marks, string.sub(repetition, 1, MARK_LENGTH), 1, true) ~= nil
end

-- Returns false if there is no room for more marks, or the record is deleted before the marks would be.
local function add_marks(id, repetitions)
  local m = read(key('msg', id), 'state', 'seen')
  local marks = m.seen or ''
  for _, repetition in ipairs(repetitions) do
    if #marks >= MOST_MARKS * (MARK_LENGTH + 1) then return false end
    marks = marks .. string.sub(repetition, 1, MARK_LENGTH) .. ' '
  end
  if not m.state or RETENTION < REPORT_WAIT then return false end
  if marks ~= (m.seen or '') then call_last('HSET', key('msg', id), 'seen', marks) end
  return true
end

-- Parked reports of an id that is not known yet: the first MOST_PARKED, and the first of each state that these do not
-- have, so that the message ends in the same state as with all of them. No provider sends so many before its answer.
-- Handlers get the others without a message.
local MOST_PARKED, CHUNK = 16, 500
-- Parked reports that this settle has applied. A message may have 255 ids: beyond the length of its timeline, only reports
-- that change a state are applied.
local applied = 0

local function parked_report_of(text)
  local well, report = pcall(cjson.decode, text)
  if well and type(report) == 'table' and type(report[1]) == 'string' then return report end
  return nil
end

-- The parked reports of an id that count, in the order in which they came. Older versions stored any number of them, so
-- they are read in chunks.
local function parked_reports(parked)
  local kept, states = {}, {}
  for first = 0, redis.call('LLEN', parked) - 1, CHUNK do
    for _, text in ipairs(redis.call('LRANGE', parked, first, first + CHUNK - 1)) do
      local report = parked_report_of(text)
      local state = report and tostring(report[2])
      if report and (#kept < MOST_PARKED or RANK[state] and not states[state]) then
        kept[#kept + 1] = report
        states[state] = true
      end
    end
  end
  return kept, states
end

-- Parks a report for the message that may get this id.
local function park(ref, event, state, code, guess)
  local parked = key('parked', ref)
  local length = redis.call('LLEN', parked)
  if length >= MOST_PARKED then
    local kept, states = parked_reports(parked)
    if #kept < length then
      redis.call('DEL', parked)
      for _, report in ipairs(kept) do redis.call('RPUSH', parked, cjson.encode(report)) end
    end
    if not RANK[state] or states[state] then return end
  end
  redis.call('RPUSH', parked, cjson.encode({ event, state, code, guess }))
  redis.call('PEXPIRE', parked, REPORT_WAIT)
end

-- A record's provider and msgid are its own reference. The first other ones are in its field `refs` (a JSON list); a set
-- holds the rest, and all references of messages that old versions sent.
local REFS_IN_RECORD = 4

local function references_in_record(id)
  local well, refs = pcall(function() return cjson.decode(get(key('msg', id), 'refs') or '[]') end)
  return well and type(refs) == 'table' and refs or {}
end

local function own_reference(id)
  local m = read(key('msg', id), 'provider', 'msgid')
  local pid = string.match(m.msgid or '', '^"([^"\\]+)"$')
  return pid and m.provider and m.provider .. ':' .. pid
end

-- All references of a message, to delete them with it.
local function references_of(id)
  local well, own = pcall(own_reference, id)
  local refs = { well and own or nil }
  for _, ref in ipairs(references_in_record(id)) do
    if type(ref) == 'string' then refs[#refs + 1] = ref end
  end
  return with_list(refs, redis.call('SMEMBERS', key('refs', id)))
end

local function note_reference(id, ref)
  if not get(key('msg', id), 'refs') then
    set(key('msg', id), 'refs', cjson.encode({ ref }))
    return
  end
  local refs = references_in_record(id)
  if is_one_of(ref, refs) then return end
  if #refs < REFS_IN_RECORD then
    refs[#refs + 1] = ref
    set(key('msg', id), 'refs', cjson.encode(refs))
  else
    redis.call('SADD', key('refs', id), ref)
  end
end

-- Removes the record's own reference from `refs`, where it is not needed.
local function drop_own_reference(id)
  local hash, own = key('msg', id), own_reference(id)
  local text = get(hash, 'refs')
  if not text or not own then return end
  if text == cjson.encode({ own }) then return unset(hash, 'refs') end
  local others, refs = {}, references_in_record(id)
  for _, ref in ipairs(refs) do
    if ref ~= own then others[#others + 1] = ref end
  end
  if #others == #refs then return end
  if #others == 0 then unset(hash, 'refs') else set(hash, 'refs', cjson.encode(others)) end
end

-- Records that a provider's id refers to this attempt, and applies its parked reports. Adds their events that are to be
-- published to `events`.
local function add_reference(id, attempt, provider, pid, events)
  local ref = provider .. ':' .. pid
  redis.call('SET', key('ref', ref), id .. '.' .. attempt)
  if ref ~= own_reference(id) then note_reference(id, ref) end
  local parked = key('parked', ref)
  if redis.call('EXISTS', parked) == 0 then return end
  local reports, states = parked_reports(parked), {}
  redis.call('DEL', parked)
  for _, report in ipairs(reports) do
    -- The report counts even if its handlers have run without a message.
    local event, state, code = report[1], report[2], report[3]
    local hash = key('event', event)
    if RANK[state] and (applied < TIMELINE_MAX or not states[state]) then
      applied, states[state] = applied + 1, true
      apply_report(id, attempt, state, provider, code, { pid }, tonumber(report[4]),
                   applied > TIMELINE_MAX)
    end
    local well, event_state = pcall(get, hash, 'state')
    if well and event_state == 'parked' then
      set_message(event, id)
      events[#events + 1] = unpark(event)
    end
  end
end
