-- A message's rank: what was given up here (failed, cancelled, expired without a report) ranks
-- below everything that a provider says.
local function rank_of(state, reported)
  if state == 'expired' and reported ~= 'expired' then return 0 end
  return RANK[state] or 0
end

-- Ids whose reports are kept for one attempt: no SMS has more parts.
local MOST_PARTS = 255

-- What was reported of an attempt's parts, nil if it is not known to have several: `ids` (by the
-- provider's id 0: nothing; 1: it was taken; 2: it was delivered), `told` (the provider's answer
-- named these ids; false: they are those that were reported), `guess` (how many parts the text
-- has, where reports are of parts and no answer told).
local function parts_of(id, attempt, m)
  local hash = key('msg', id)
  local text = get(hash, 'parts.' .. attempt)
  if text and string.sub(text, 1, 1) == '=' then -- the attempt that repeated this one
    text = get(hash, 'parts.' .. string.sub(text, 2))
  end
  if text then return cjson.decode(text) end
  if not (m.sent_at and attempt == tonumber(m.attempt) and string.find(m.msgid or '', '^%[')) then
    return nil
  end
  -- Settled by a version that kept the ids only.
  local parts, number = { ids = {}, told = true }, 0
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

-- The state of an attempt by what is known of its parts; nil: nothing is. A failure of a part
-- counts by itself, see reported_state.
local function state_of_parts(parts)
  local number, taken, delivered = 0, 0, 0
  for _, level in pairs(parts.ids) do
    number = number + 1
    if level > 0 then taken = taken + 1 end
    if level == 2 then delivered = delivered + 1 end
  end
  if not parts.told then number = parts.guess or 1 end
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
    set(hash, field, cjson.encode(parts))
  else
    unset(hash, field)
  end
end

-- The state that an attempt has after a report, which may be of one of its parts: delivered when
-- all are, accepted when all were taken, undelivered or expired as soon as one is. This never
-- decreases, whatever order the reports come in.
-- Returns: the state (nil: to be seen when the provider's answer tells how many parts there are),
--          whether the report is of a part
local function reported_state(id, attempt, state, m, pids, guess)
  if #pids == 0 or m.reported == 'delivered' then return state, false end
  local made, parts = tonumber(m.attempt), parts_of(id, attempt, m)
  -- Its answer is still to come, to a worker whose settle counts the parts.
  local awaited = m.state == 'sending' and m.calling and tonumber(m.gathers) == made and
      (attempt == made or attempt == tonumber(m.pin_ref))
  if not parts then
    local answered = m.sent_at and attempt == made -- with one id
    if not awaited and (answered or not guess) then return state, false end
    parts = { ids = {} }
  end
  -- Who parked a report could not read the text.
  if guess then parts.guess = math.max(guess, parts.guess or 1) end
  local number = 0
  for _ in pairs(parts.ids) do number = number + 1 end
  for _, pid in ipairs(pids) do
    local level = parts.ids[pid]
    if parts.told and not level then
      -- None of its parts: the report is of the message, or of a part that counts if it failed.
      if not guess then return state, false end
    elseif level or number < MOST_PARTS then
      number = level and number or number + 1
      parts.ids[pid] = math.max(level or 0, state == 'delivered' and 2 or 1)
    end
  end
  local now = state_of_parts(parts)
  local waits = awaited and not parts.told
  -- Of what is delivered there is no more to be known.
  keep_parts(id, attempt, (waits or now ~= 'delivered') and parts or nil)
  local several = parts.told or (parts.guess or 1) > 1
  if state == 'expired' or state == 'undelivered' then return state, several end
  if waits then return nil, several end
  return now, several
end

-- An attempt has come into a state: its effect on the message. An attempt of an earlier generation
-- only counts if it delivered: the operator chose to send again.
local function advance(id, attempt, state, provider, m)
  local hash = key('msg', id)
  if attempt < tonumber(m.first or 1) and state ~= 'delivered' then return false end
  if RANK[state] <= (RANK[m.reported] or 0) then return false end
  set(hash, 'reported', state)
  if m.state == 'sending' then return false end -- the settle will take it into account
  local waits = CLAIMABLE[m.state]
  if waits and (state == 'expired' or state == 'undelivered') then return false end
  if RANK[state] <= rank_of(m.state, m.reported) then return false end
  enter(id, m.state, state, report_look(state, m.report), nil, provider)
  -- `sent_at` is that of the last attempt; an earlier one was never seen to be sent.
  if state == 'delivered' and m.sent_at and attempt == tonumber(m.attempt) then
    observe('delivered', provider, math.max(0, NOW - m.sent_at))
  end
  if state == 'delivered' then unset(hash, 'sent_at') end
  return true
end

local function read_reported(id)
  return read(key('msg', id), 'state', 'reported', 'first', 'report', 'sent_at', 'attempt',
              'calling', 'gathers', 'pin_ref', 'msgid')
end

-- Does a report change what is known of its message? An attempt has few such reports, whoever sends
-- how many: each raises what was reported of it, or of one of its parts.
local function is_news(id, attempt, state, pids, guess)
  local m = read_reported(id)
  if not m.state or not RANK[state] or RANK[state] <= (RANK[m.reported] or 0) then return false end
  if attempt < tonumber(m.first or 1) and state ~= 'delivered' then return false end
  local parts, number = #pids > 0 and parts_of(id, attempt, m), 0
  if not parts or state == 'expired' or state == 'undelivered' then return true end
  for _ in pairs(parts.ids) do number = number + 1 end
  for _, pid in ipairs(pids) do
    local level = parts.ids[pid]
    if level then
      if level < (state == 'delivered' and 2 or 1) then return true end
    elseif parts.told then
      if not guess then return true end
    elseif number < MOST_PARTS then
      return true
    end
  end
  return false
end

-- A report's effect on its message.
-- pids: the provider's ids in the report; guess: parts that the message's text has, if the report
-- is of one part, else nil; quiet: the timeline does not tell of it
local function apply_report(id, attempt, state, provider, code, pids, guess, quiet)
  local m = read_reported(id)
  if not m.state then return false end
  local now, part = reported_state(id, attempt, state, m, pids, guess)
  local old = attempt < tonumber(m.first or 1) and state ~= 'delivered'
  local why = old and 'report of an earlier sending' or part and 'report of a part' or 'report'
  if not quiet then
    note(id, { state = state, why = why, provider = provider, attempt = attempt,
               code = code ~= '' and code or nil })
  end
  return now and advance(id, attempt, now, provider, m) or false
end

-- An attempt is over: how many parts it has is known by the ids of the provider's answer (none:
-- it told none), and what was reported of them until now counts. Repeating it changes nothing.
-- repeated: the attempt that it repeated, whose reports may be its own; nil: none
local function count_parts(id, attempt, pids, provider, repeated)
  local hash = key('msg', id)
  -- One id at most, and nothing was reported of parts: the usual message, which has none.
  if #pids <= 1 and not repeated and not get(hash, 'parts.' .. attempt) then return end
  local m = read_reported(id)
  local function kept(number)
    local text = number and get(hash, 'parts.' .. number)
    return text and string.sub(text, 1, 1) ~= '=' and cjson.decode(text) or { ids = {} }
  end
  local own, earlier = kept(attempt), kept(repeated)
  local parts = { ids = {}, told = #pids > 0, guess = own.guess or earlier.guess }
  local number, whole = 0, 0 -- whole: as a level, what was reported of the message itself
  for _, pid in ipairs(pids) do
    if not parts.ids[pid] then number = number + 1 end
    parts.ids[pid] = 0
  end
  for _, known in ipairs({ own, earlier }) do
    for pid, level in pairs(known.ids) do
      if parts.ids[pid] or not parts.told then
        parts.ids[pid] = math.max(parts.ids[pid] or 0, level)
      elseif number == 1 or not known.guess then
        whole = math.max(whole, level)
      end
    end
  end
  if own.told and not parts.told then return end
  local now = state_of_parts(parts)
  if whole == 2 then now = 'delivered' end
  if whole == 1 and now ~= 'delivered' then now = 'accepted' end
  local several = number > 1 or not parts.told and (parts.guess or 1) > 1
  if repeated and several then set(hash, 'parts.' .. repeated, '=' .. attempt) end
  keep_parts(id, attempt, several and now ~= 'delivered' and parts or nil)
  if now then advance(id, attempt, now, provider, m) end
end

-- Marks of the reports that were recorded of a message, to know those that are repeated. The first of them are in its
-- record, as a key of its own takes several times as much; they are as long as need be to differ among so few.
local MARK_LENGTH, MOST_MARKS = 12, 16
local function is_marked(id, repetition)
  local well, marks = pcall(get, key('msg', id), 'seen')
  return well and marks and string.find(marks, string.sub(repetition, 1, MARK_LENGTH), 1, true) ~= nil
end

-- Returns false if there is no room for more marks, or the record is kept for less time than marks are.
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

-- Reports that wait for one id that is not known: the first MOST_PARKED, and the first of each state
-- that these do not have, so that the message ends in the same state as with all of them. No provider
-- sends so many before its answer. The others still reach the hooks, without a message.
local MOST_PARKED, CHUNK = 16, 500
-- Reports that waited and were applied by this settle. A message may have 255 ids: beyond as many as its
-- timeline holds, only what changes a state is looked at.
local applied = 0

local function parked_report_of(text)
  local well, report = pcall(cjson.decode, text)
  if well and type(report) == 'table' and type(report[1]) == 'string' then return report end
  return nil
end

-- The reports that count of those that wait for an id, in the order in which they came. Older versions
-- kept any number of them: these are read in pieces.
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

-- Keeps a report for the message that may come to have this id.
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

-- Provider and msgid of a record are a reference by themselves. The first of the others are in its field `refs`, a JSON
-- list; a set holds what there is beyond these, and all of a message that an old version sent.
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

-- All references of a message, to forget them with it.
local function references_of(id)
  local well, own = pcall(own_reference, id)
  local found = { well and own or nil }
  for _, ref in ipairs(references_in_record(id)) do
    if type(ref) == 'string' then found[#found + 1] = ref end
  end
  return with_list(found, redis.call('SMEMBERS', key('refs', id)))
end

local function note_reference(id, ref)
  local refs = references_in_record(id)
  if is_one_of(ref, refs) then return end
  if #refs < REFS_IN_RECORD then
    refs[#refs + 1] = ref
    set(key('msg', id), 'refs', cjson.encode(refs))
  else
    redis.call('SADD', key('refs', id), ref)
  end
end

-- The record's own reference need not be in `refs`.
local function drop_own_reference(id)
  local own, others, refs = own_reference(id), {}, references_in_record(id)
  for _, ref in ipairs(refs) do
    if ref ~= own then others[#others + 1] = ref end
  end
  if #others == #refs then return end
  if #others == 0 then unset(key('msg', id), 'refs') else set(key('msg', id), 'refs', cjson.encode(others)) end
end

-- Remembers that a provider's id means this attempt, and applies reports that came before. Adds
-- to `events` those that are to be published.
local function add_reference(id, attempt, provider, pid, events)
  local ref = provider .. ':' .. pid
  redis.call('SET', key('ref', ref), id .. '.' .. attempt)
  if ref ~= own_reference(id) then note_reference(id, ref) end
  local parked = key('parked', ref)
  if redis.call('EXISTS', parked) == 0 then return end
  local reports, states = parked_reports(parked), {}
  redis.call('DEL', parked)
  for _, report in ipairs(reports) do
    -- The report counts even if its hook ran unmatched and its event is gone by now.
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
