-- Begins an attempt at a provider under a claim. Repeating it returns the first answer while the attempt runs; a
-- call that Redis reads later has no effect.
-- ARGV: id, token, provider, lease (ms), attempt (the number that it would be), event (id for the ending, if its
--       recipient has opted out), categories that go out in spite of that (a space around each)
-- Returns: 'go', attempt | 'paused', ms until the pause ends | 'lost' (the claim is no longer valid) | 'opted_out', event or ''
local id, token, provider, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local m = read(key('msg', id), 'state', 'token', 'attempt', 'provider', 'calling', 'reported')
if m.state ~= 'sending' or m.token ~= token then return { 'lost' } end
if m.calling and m.attempt == ARGV[5] and m.provider == provider then
  return { 'go', tonumber(m.attempt) }
end
if tonumber(m.attempt or 0) + 1 ~= tonumber(ARGV[5]) then return { 'lost' } end
-- The network has it from an earlier attempt: no provider is called, and settling ends the message.
if m.reported == 'sent' or m.reported == 'accepted' or m.reported == 'delivered' then
  return { 'paused', 0 }
end
local r = read(key('msg', id), 'number', 'former_number', 'data', 'pin')
if not r.pin and has_opted_out(r, ARGV[7]) then
  return { 'opted_out', refuse_opted_out(id, 'sending', ARGV[6]) }
end
return begin(id, token, provider, lease)
