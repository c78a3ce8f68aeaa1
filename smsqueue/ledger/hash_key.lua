-- Decides which key hashes the numbers of this namespace: the first process decides for all later ones.
-- While a key in Redis is still needed, the mark of SMSQUEUE_HASH_KEY is stored beside it.
-- ARGV: mark of SMSQUEUE_HASH_KEY ('': it is not set), a new key, used if there is none
-- Returns: the key or the mark in `secret`, the mark beside it (or '')
local mark, new = ARGV[1], ARGV[2]
local secret, beside = key('secret'), key('idem', 'hash_key')
local there, theirs = redis.call('GET', secret), redis.call('GET', beside)
if not there then -- or an operator has deleted the former key
  there = theirs or mark ~= '' and mark or new
  redis.call('SET', secret, there)
  redis.call('DEL', beside)
  theirs = false
elseif string.sub(there, 1, 8) ~= 'outside:' and not theirs and mark ~= '' then
  theirs = mark
  redis.call('SET', beside, mark)
end
return { there, theirs or '' }
