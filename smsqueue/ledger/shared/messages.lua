-- A timeline of fewer bytes certainly has fewer than TIMELINE_MAX lines.
local SURELY_SHORT = 30 * TIMELINE_MAX

-- Where the last line of a timeline begins; nil: parse the whole timeline. Lines are flat objects, and texts escape their
-- quotation marks, so the last line begins at the last '{"'.
local function last_line(text)
  if #text > SURELY_SHORT or string.sub(text, 1, 3) ~= '[{"' then return nil end
  return string.match(text, '^.*(){".*}%]$')
end

-- Adds a line to a message's timeline. A line that repeats the last one increments its count; a long timeline keeps its
-- first line and the newest ones.
local function note(id, line)
  local hash = key('msg', id)
  local text, lines = get(hash, 'timeline'), {}
  local newest = text and last_line(text)
  local is_another = newest and not string.find(text, '"state":"' .. line.state .. '"', newest, true)
  if text and not is_another then
    lines = timeline_of(text)
    if not lines or #lines == 0 then error('timeline is not a JSON list of lines', 0) end
  end
  local last = lines[#lines]
  if last and last.state == line.state and last.provider == line.provider and last.why == line.why
      and last.error == line.error and last.code == line.code and last.attempt == line.attempt then
    last.times = (last.times or 1) + 1
    last.last = NOW
    last.next = line.next
  else
    line.at = NOW
    if text and #lines < TIMELINE_MAX and string.sub(text, -1) == ']' then
      set(hash, 'timeline', string.sub(text, 1, -2) .. ',' .. cjson.encode(line) .. ']')
      return
    end
    lines[#lines + 1] = line
    if #lines > TIMELINE_MAX then
      local gone = table.remove(lines, 2)
      lines[2].dropped = (gone.dropped or 0) + 1
    end
  end
  set(hash, 'timeline', cjson.encode(lines))
end

-- When a message was accepted: the first line of its timeline is never dropped.
local function accepted_at(id)
  return tonumber(string.match(get(key('msg', id), 'timeline'), '"at":(%d+)'))
end

-- A message leaves the state in which it was held (see pauses.lua).
local function no_longer_held(id)
  local place = get(key('msg', id), 'held')
  if not place then return end
  index_remove(key('held', place), id)
  unset(key('msg', id), 'held')
end

-- Moves a message into a state, with the index by state, the due set of its lane and the time of its deletion.
-- look: when it is next due; nil: it is final
-- error, provider (if not that of the last attempt): labels for counting its end
local function enter(id, from, to, look, error, provider)
  local hash = key('msg', id)
  local waits = LANE[from] == 'send' or look and LANE[to] == 'send'
  local bulk = waits and get(hash, 'bulk')
  if from then
    if LANE[from] then index_remove(due_key(LANE[from]), id) end
    if LANE[from] == 'send' and bulk then index_remove(due_key('send_bulk'), id) end
    index_remove(state_key(from), id)
    if from == 'unknown' then index_remove(due_key('ask'), id) end
    if LANE[from] == 'send' or from == 'unknown' then no_longer_held(id) end
  end
  set(hash, 'state', to)
  index_add(state_key(to), NOW, id)
  if ENDS[to] and from ~= to then
    count('ended', to, provider or get(hash, 'provider') or '', error or '')
  end
  if look then
    index_add(due_key(LANE[to] == 'send' and lane_for('send', bulk) or LANE[to]), look, id)
  end
  if not look and not FINAL_STATES[to] then
    index_add(key('ends'), NOW + RETENTION, id)
  elseif from and LANE[from] ~= 'send' and from ~= 'sending' then
    -- Waiting messages and those being sent are not in it; final ones are if an older version ended them.
    index_remove(key('ends'), id)
  end
end

-- Makes a waiting message due now that is in no due set.
local function look_now(id)
  local lane = lane_for('send', get(key('msg', id), 'bulk'))
  redis.call('ZADD', due_key(lane), 'NX', NOW, id)
end

-- When a message in a state is next due; nil: never.
local function next_look(id, state)
  local lane = LANE[state]
  return lane and (index_score(due_key(lane), id) or
                   lane == 'send' and index_score(due_key('send_bulk'), id)) or nil
end

-- When a waiting message is due: at its time, or at the end of its validity.
local function sooner(at, expires)
  expires = tonumber(expires)
  if expires and expires < at then return expires end
  return at
end

-- Makes a message unknown. ask_after_ms: ms after which its provider can be asked about it; nil: it cannot.
local function uncertain(id, from, error, ask_after_ms)
  enter(id, from, 'unknown', NOW + REPORT_WAIT, error)
  unset(key('msg', id), 'pin', 'pin_until')
  if ask_after_ms then index_add(due_key('ask'), NOW + ask_after_ms, id) end
end

-- Pins a message to a provider that may have it and de-duplicates: the call may be repeated until `ends`. False: that
-- time is over.
local function pin(id, m, ends, look, ask_after_ms)
  if look >= ends then return false end
  set(key('msg', id), 'pin', m.provider, 'pin_until', ends, 'pin_ref', m.pin_ref or m.attempt)
  if ask_after_ms then set(key('msg', id), 'ask_after_ms', ask_after_ms) end
  return true
end

-- When to stop waiting for reports: sent and accepted messages wait if their sender asked for reports.
local function report_look(state, report)
  if report and (state == 'sent' or state == 'accepted') then return NOW + REPORT_WAIT end
  return nil
end
