-- Deletes events of webhooks, as an operator asked for: incoming messages and delivery reports. Sent messages and
-- reports that wait for their message stay as they are. So do the marks of repetitions: a webhook that its provider
-- repeats is not recorded again.
-- ARGV: count only (1 or ''), provider ('': any), kind ('received' | 'status' | '': either), events..., the action (see
--       shared/audit_log.lua; '' while they are counted)
-- Returns: how many of the events were examined (the time for one call is limited), how many were (or would be)
--          deleted, bytes that they took, how many are left because a worker runs their handlers
local dry, provider, kind = ARGV[1] ~= '', ARGV[2], ARGV[3]
local looked, gone, bytes, running, out_of_time = 0, 0, 0, 0, stopwatch()

-- The provider whose webhook made an event; nil: it has another origin.
local function sender_of(e)
  local counted = e.held or e.kept
  if counted then return string.match(counted, '^(.-)|') end
  local well, data = pcall(cjson.decode, e.data or '') -- an older version recorded it
  return well and type(data) == 'table' and type(data.provider) == 'string' and data.provider or nil
end

local function delete(event, e)
  forget_webhook(event, NOW + REPORT_WAIT)
  if e.group and redis.pcall('HGET', key('parts', e.group), 'event') == event then
    redis.call('DEL', key('parts', e.group))
  end
  if e.number then redis.call('ZREM', key('number', e.number), event) end
  redis.call('ZREM', key('state', e.state), event)
  for _, lane in ipairs(RECORDS.event.lanes) do redis.call('ZREM', due_key(lane), event) end
  redis.call('ZREM', key('event_ends'), event)
  redis.call('DEL', key('event', event), key('done', event))
end

local function look(event)
  local e = read(key('event', event), 'kind', 'state', 'lease', 'held', 'kept', 'number', 'group')
  if not e.state or e.kind ~= 'received' and e.kind ~= 'status' then return end
  if kind ~= '' and e.kind ~= kind then return end
  if not (e.held or e.kept) then e.data = redis.call('HGET', key('event', event), 'data') end
  local from = sender_of(e)
  if not from or provider ~= '' and from ~= provider then return end
  if e.state == 'running' and (tonumber(e.lease) or 0) > NOW then
    running = running + 1
    return
  end
  gone = gone + 1
  bytes = bytes + (tonumber(string.match(e.held or e.kept or '', '^.-|(%d+)|')) or 0)
  if not dry then delete(event, e) end
end

for i = 4, #ARGV do
  if looked >= FEW and out_of_time() then break end
  looked = looked + 1
  pcall(look, ARGV[i]) -- `smsqueue repair` deals with damaged ones
end
audit_count('done', gone)
return { looked, gone, bytes, running }
