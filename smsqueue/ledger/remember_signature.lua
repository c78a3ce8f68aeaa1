-- Remembers for which request the signature of a webhook was used: another request with the same signature is a
-- forgery, the same request is a repetition.
-- ARGV: signature (hash), request (hash), ms to remember it ('': forget it, if it was used for this request)
-- Returns: 'new' | 'same' | 'other'
local used = key('seen', ARGV[1])
local before = redis.call('GET', used)
if ARGV[3] == '' then
  if before == ARGV[2] then redis.call('DEL', used) end
elseif not before then
  redis.call('SET', used, ARGV[2], 'PX', ARGV[3])
  return 'new'
end
return before == ARGV[2] and 'same' or 'other'
