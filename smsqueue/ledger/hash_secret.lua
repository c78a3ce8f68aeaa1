-- Decides which key hashes the numbers of this namespace: the first process decides for all later ones.
-- While a key in Redis is still needed, the mark of SMSQUEUE_HASH_KEY is stored beside it.
-- ARGV: mark of SMSQUEUE_HASH_KEY ('': it is not set), a new key, used if there is none
-- Returns: the key or the mark in `secret`, the mark beside it (or '')
local mark, new = ARGV[1], ARGV[2]
local secret, beside = key('secret'), key('idem', 'hash_key')
local value, mark_beside = redis.call('GET', secret), redis.call('GET', beside)
if not value then -- or an operator has deleted the former key
  value = mark_beside or mark ~= '' and mark or new
  redis.call('SET', secret, value)
  redis.call('DEL', beside)
  mark_beside = false
elseif string.sub(value, 1, 8) ~= 'outside:' and not mark_beside and mark ~= '' then
  mark_beside = mark
  redis.call('SET', beside, mark)
end
return { value, mark_beside or '' }
