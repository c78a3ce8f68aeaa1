-- Claims a message for one worker, and begins its attempt if it needs no router (its sender named neither provider
-- nor routing values). Repeating it with the same token returns the first answer.
-- ARGV: id, token, lease (ms), worker, event (id for the ending, if its validity has ended), provider of messages
--       that need no router ('': do not begin), lease at that provider (ms), whether to begin only a single
--       message, not bulk (1 or ''), categories that go out in spite of an opt-out (a space around each)
-- Returns: 'claimed', data, attempts, tries, now, since (or ''), 'go' | 'paused' | '' (not begun),
--          attempt or ms until the pause ends, provider that it is pinned to (or ''), the attempt that it
--          repeats (or ''), ms until its validity ends (or '') |
--          'ask', data, provider, attempt, time of the call, how many times the provider was asked |
--          'early', not_before | 'expired', event or '' | 'opted_out', event or '' | 'state', state, next look or '' | 'gone'
local id, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local hash = key('msg', id)
local m = read(hash, 'state', 'token', 'not_before', 'expires', 'reported', 'published_at', 'ask_now',
               'pin', 'pin_until', 'ask_after_ms', 'refused', 'tags', 'held', 'bulk')
if not m.state then return { 'gone' } end
if m.refused and string.find(m.refused, ' ' .. token .. ' ', 1, true) then
  return { 'state', m.state, '' }
end
note_left(hash, 'send', m.published_at)

if not (m.state == 'sending' and m.token == token) then
  if m.state == 'unknown' and m.ask_now then
    unset(hash, 'ask_now')
    local scope = paused_scope(m.tags)
    if scope then
      hold('ask', id, { held = m.held }, scope)
      return { 'state', m.state, index_score(due_key('watch'), id) or '' }
    end
    local f = read(hash, 'data', 'provider', 'attempt', 'pin_ref', 'called')
    local ends = tonumber(get(key('pause', f.provider), 'until') or 0)
    if ends > NOW then
      -- A paused provider is not asked either. Spread the questions over a minute after the pause.
      index_add(due_key('ask'), ends + math.floor(clock[2] / 1000000 * 60000), id)
      return { 'state', m.state, index_score(due_key('watch'), id) or '' }
    end
    index_add(due_key('ask'), NOW + lease, id)
    local times = increase(hash, 'times_asked', 1)
    return { 'ask', f.data or '', f.provider or '', f.pin_ref or f.attempt or 0, f.called or NOW, times }
  end
  if not CLAIMABLE[m.state] then
    local look = index_score(due_key('watch'), id)
    return { 'state', m.state, look or '' }
  end
  local outdated = m.expires and tonumber(m.expires) <= NOW
  local may_repeat = m.pin and not outdated and (tonumber(m.pin_until) or 0) > NOW
  local r = read(hash, 'number', 'former_number', 'data')
  local opted_out = (may_repeat or not m.pin) and has_opted_out(r, ARGV[9])
  local pin_ends = m.pin and (not may_repeat or opted_out)
  if pin_ends and RANK[m.reported] then
    -- It is not sent again, so the report counts.
    unset(hash, 'pin', 'pin_until')
    enter(id, m.state, m.reported, nil)
    return { 'state', m.reported, '' }
  end
  if pin_ends then
    -- Its provider may have it from an earlier attempt, so whether it expired is unknown.
    note(id, { state = 'unknown', provider = m.pin,
               why = opted_out and 'the recipient has opted out since it was sent' or
                   'the time is over in which it could be sent again safely' })
    uncertain(id, m.state, nil, tonumber(m.ask_after_ms))
    return { 'state', 'unknown', index_score(due_key('watch'), id) }
  end
  if outdated then
    -- Do first what can fail: a damaged message must not end without its event.
    note(id, { state = 'expired', why = 'its validity ran out before it could be sent' })
    local event = add_ending(ARGV[5], id, 'MessageExpired', 'expired before it could be sent')
    enter(id, m.state, 'expired', nil)
    return { 'expired', event }
  end
  if m.not_before and tonumber(m.not_before) > NOW then return { 'early', m.not_before } end
  if opted_out then
    return { 'opted_out', refuse_opted_out(id, m.state, ARGV[5]) }
  end
  local scope = paused_scope(m.tags)
  if scope then return { 'early', hold(lane_for('send', m.bulk), id, m, scope) } end
  enter(id, m.state, 'sending', NOW + lease)
  set(hash, 'token', token, 'worker', ARGV[4])
  unset(hash, 'calling', 'awaited_attempt', 'settled')
end
local f = read(hash, 'data', 'attempt', 'tries', 'since', 'calling', 'pin', 'pin_ref', 'validity_left_ms', 'bulk')
-- A repetition has the same validity as the first call, since the provider compares them.
local validity_left_ms = m.expires and (f.pin and f.validity_left_ms or tonumber(m.expires) - NOW) or ''
if validity_left_ms ~= '' and not f.pin then set(hash, 'validity_left_ms', validity_left_ms) end
local begun = { '', '' }
if ARGV[6] ~= '' and not f.pin and not (ARGV[8] ~= '' and f.bulk) then
  local well, d = pcall(cjson.decode, f.data)
  if well and type(d) == 'table' and d.provider == nil and d.route == nil then
    begun = f.calling and { 'go', f.attempt } or begin(id, token, ARGV[6], tonumber(ARGV[7]))
  end
end
return { 'claimed', f.data or '', f.attempt or 0, f.tries or 0, NOW, f.since or accepted_at(id), begun[1], begun[2],
         f.pin or '', f.pin and f.pin_ref or '', validity_left_ms }
