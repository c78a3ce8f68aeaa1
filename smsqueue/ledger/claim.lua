-- Gives a message to one worker, and begins its attempt if it needs no router: its sender named
-- neither provider nor routing values. Repeating it with the same token returns the first answer.
-- ARGV: id, token, lease (ms), worker, event (id for the ending, if its validity has run out),
--       provider of messages that need no router ('': do not begin), lease at that provider (ms)
-- Returns: 'claimed', data, attempts, tries, now, since (or ''), 'go' | 'paused' | '' (not begun),
--          attempt or until | 'early', not_before | 'expired', event or '' |
--          'state', state, next look or '', whether a report made it so (1 or '') | 'gone'
local id, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local hash = key('msg', id)
local m = read(hash, 'state', 'token', 'not_before', 'expires', 'reported', 'out')
if not m.state then return { 'gone' } end
if m.out then
  -- The queue is first in, first out: what was published before this one has left it, too.
  local passed = key('passed')
  if tonumber(m.out) > tonumber(redis.call('GET', passed) or 0) then
    redis.call('SET', passed, m.out)
  end
  redis.call('HDEL', hash, 'out')
end

if not (m.state == 'sending' and m.token == token) then
  if not CLAIMABLE[m.state] then
    local look = redis.call('ZSCORE', due_key('watch'), id)
    return { 'state', m.state, look or '', m.reported and 1 or '' }
  end
  if m.expires and tonumber(m.expires) <= NOW then
    enter(id, m.state, 'expired', nil)
    note(id, { state = 'expired', why = 'its validity ran out before it could be sent' })
    return { 'expired', add_ending(ARGV[5], id, 'MessageExpired', 'expired before it could be sent') }
  end
  if m.not_before and tonumber(m.not_before) > NOW then return { 'early', m.not_before } end
  enter(id, m.state, 'sending', NOW + lease)
  redis.call('HSET', hash, 'token', token, 'worker', ARGV[4])
  redis.call('HDEL', hash, 'calling', 'settled')
end
local f = read(hash, 'data', 'attempt', 'tries', 'since', 'calling')
local begun = { '', '' }
if ARGV[6] ~= '' then
  local well, d = pcall(cjson.decode, f.data)
  if well and d.provider == nil and d.route == nil then
    begun = f.calling and { 'go', f.attempt } or begin(id, token, ARGV[6], tonumber(ARGV[7]))
  end
end
return { 'claimed', f.data, f.attempt or 0, f.tries or 0, NOW, f.since or '', begun[1], begun[2] }
