-- Records what became of the handlers of an event. Repeating it returns the first answer.
-- ARGV: event, token, verdict ('done' | 'retry' | 'dead' | 'unheard' | 'back': its worker stops, and no try is
--       counted), delay (ms), why, names of handlers that succeeded and were not recorded before (JSON list)
-- Returns: state, next look ('' if it is over)
local event, token, verdict = ARGV[1], ARGV[2], ARGV[3]
local hash = key('event', event)
local e = read(hash, 'state', 'token', 'kind')
if not e.state then return { 'gone', '' } end
local ours = e.state == 'running' and e.token == token
local is_over = ours and verdict == 'done' and e.kind ~= 'received' -- its record is deleted
if not is_over then
  -- This is true even if another worker has the event now.
  for _, name in ipairs(cjson.decode(ARGV[6])) do redis.call('SADD', key('done', event), name) end
end
if not ours then return { e.state, '' } end
index_remove(due_key('hook'), event)
index_remove(due_key('hook_bulk'), event)
index_remove(state_key('running'), event)
if verdict == 'back' then
  unset(hash, 'token', 'lease')
  place(event, 'waiting', NOW)
  return { 'waiting', NOW }
end
count('hooks', e.kind or '', verdict)
if is_over then
  forget_webhook(event, NOW + REPORT_WAIT)
  delete_hash(hash)
  redis.call('DEL', key('done', event))
  return { 'done', '' }
end
set(hash, 'why', ARGV[5])
unset(hash, 'token', 'lease')
if verdict == 'retry' then
  increase(hash, 'tries', 1)
  local look = NOW + tonumber(ARGV[4])
  put_off(event, 'waiting', look)
  return { 'waiting', look }
end
keep_handled_webhook(event)
set(hash, 'state', verdict)
index_add(state_key(verdict), NOW, event)
index_add(key('event_ends'), NOW + RETENTION, event)
return { verdict, '' }
