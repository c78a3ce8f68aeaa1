-- Says by which key of the hashes this namespace goes: the first process decides, for all later ones.
-- While the key in Redis is still needed, the mark of SMSQUEUE_HASH_KEY is beside it.
-- ARGV: mark of SMSQUEUE_HASH_KEY ('': it is not set), a new key for where there is none
-- Returns: the key or the mark that is in `secret`, the mark beside it ('': there is none)
local mark, new = ARGV[1], ARGV[2]
local secret, beside = key('secret'), key('idem', 'hash_key')
local there, theirs = redis.call('GET', secret), redis.call('GET', beside)
if not there then -- also when an operator has deleted the key that was here before
  there = theirs or mark ~= '' and mark or new
  redis.call('SET', secret, there)
  redis.call('DEL', beside)
  theirs = false
elseif string.sub(there, 1, 8) ~= 'outside:' and not theirs and mark ~= '' then
  theirs = mark
  redis.call('SET', beside, mark)
end
return { there, theirs or '' }
