-- Removes a damaged record, or an index that was set aside, as an operator asked for. Its idempotency key stays for
-- the retention, so that repeating that send does not send it twice.
-- ARGV: id of a message or event, or the name of the key that was set aside; the action (see shared/audit_log.lua)
-- Returns: whether there was one (1 or 0)
local id = ARGV[1]
local removed = redis.call('HDEL', key('damaged'), id)
for kind, about in pairs(RECORDS) do
  local hash = key(kind, id)
  if redis.call('EXISTS', hash) == 1 then
    removed = 1
    local well, m = pcall(read, hash, 'number', 'idem', 'tags')
    if well and m.number then redis.call('ZREM', key('number', m.number), id) end
    if well and m.idem then redis.call('PEXPIRE', key('idem', m.idem), RETENTION) end
    if well and kind == 'msg' then forget_tags(id, m.tags) end
    for _, ref in ipairs(references_of(id)) do
      if string.match(redis.call('GET', key('ref', ref)) or '', '^(.*)%.') == id then
        redis.call('DEL', key('ref', ref))
      end
    end
    for _, lane in ipairs(about.lanes) do redis.call('ZREM', due_key(lane), id) end
    for _, state in ipairs(about.states) do redis.call('ZREM', key('state', state), id) end
    redis.call('ZREM', key(kind == 'msg' and 'ends' or 'event_ends'), id)
    if kind == 'event' then forget_webhook(id, NOW + REPORT_WAIT) end
    redis.call('DEL', hash, key('refs', id), key('done', id))
  end
end
if removed == 1 then
  audit_count('done', 1, id)
  redis.call('DEL', key('aside', id))
end
return removed
