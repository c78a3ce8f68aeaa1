-- Records how the handlers of an event fared. Repeating it returns the first answer.
-- ARGV: event, token, verdict ('done' | 'retry' | 'dead' | 'unheard' | 'back': its worker stops, no
--       try is used), delay (ms), why, names of handlers that succeeded and were not recorded before (JSON list)
-- Returns: state, next look ('' if it is over)
local event, token, verdict = ARGV[1], ARGV[2], ARGV[3]
local hash = key('event', event)
local e = read(hash, 'state', 'token', 'kind')
if not e.state then return { 'gone', '' } end
local succeeded = cjson.decode(ARGV[6])
-- A fact, whoever the event belongs to by now.
for _, name in ipairs(succeeded) do redis.call('SADD', key('done', event), name) end
if e.state ~= 'running' or e.token ~= token then return { e.state, '' } end
redis.call('ZREM', due_key('hook'), event)
redis.call('ZREM', due_key('hook_bulk'), event)
redis.call('ZREM', key('state', 'running'), event)
if verdict == 'back' then
  redis.call('HDEL', hash, 'token', 'lease')
  place(event, 'waiting', NOW)
  return { 'waiting', NOW }
end
count('hooks', e.kind, verdict)
if verdict == 'done' and e.kind ~= 'received' then
  forget_webhook(event, NOW + REPORT_WAIT)
  redis.call('DEL', hash, key('done', event))
  return { 'done', '' }
end
redis.call('HSET', hash, 'why', ARGV[5])
redis.call('HDEL', hash, 'token', 'lease')
if verdict == 'retry' then
  redis.call('HINCRBY', hash, 'tries', 1)
  local look = NOW + tonumber(ARGV[4])
  put_off(event, 'waiting', look)
  return { 'waiting', look }
end
keep_handled_webhook(event)
redis.call('HSET', hash, 'state', verdict)
redis.call('ZADD', key('state', verdict), NOW, event)
redis.call('ZADD', key('event_ends'), NOW + RETENTION, event)
return { verdict, '' }
