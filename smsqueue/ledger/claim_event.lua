-- Claims an event for one worker. Repeating it with the same token returns the first answer.
-- ARGV: event, token, worker
-- Returns: 'claimed', kind, data, tries, message id, message data, handlers done (JSON list)
--          | 'early', time | 'busy', end of the lease | 'over', state
local event, token = ARGV[1], ARGV[2]
local hash = key('event', event)
local e = read(hash, 'state', 'token', 'lease', 'not_before', 'kind', 'data', 'tries', 'message', 'published_at')
if not e.state and redis.call('EXISTS', hash) == 0 then return { 'over', 'gone' } end
check_record('event', e)
note_left(hash, 'hook', e.published_at)
if e.state ~= 'waiting' and e.state ~= 'parked' and e.state ~= 'running' then
  return { 'over', e.state }
end
local tries = e.tries
if not (e.state == 'running' and e.token == token) then
  if e.state == 'running' and tonumber(e.lease) > NOW then return { 'busy', e.lease } end
  if e.not_before and tonumber(e.not_before) > NOW then return { 'early', e.not_before } end
  index_remove(state_key(e.state), event)
  if e.state == 'running' then
    -- Its worker died, because of this event or of another one that ran at the same time. From the second time on
    -- such events are retried at random times, so that one of them does not end the others each time.
    tries = increase(hash, 'tries', 1)
    if tries > 1 then
      local longest = math.min(1000 * 2 ^ (tries - 1), 600000)
      local look = NOW + math.floor(clock[2] / 1000000 * longest)
      unset(hash, 'token', 'lease')
      put_off(event, 'waiting', look)
      return { 'early', look }
    end
  end
  set(hash, 'token', token, 'lease', NOW + HOOK_LEASE, 'worker', ARGV[3])
  place(event, 'running', NOW + HOOK_LEASE)
end
local done = redis.call('SMEMBERS', key('done', event))
-- The handlers run even if the record of the message is damaged.
local data = e.message and redis.pcall('HGET', key('msg', e.message), 'data')
if type(data) == 'table' then data = '' end
return { 'claimed', e.kind or '', e.data or '', tries or 0, e.message or '', data or '',
         #done > 0 and cjson.encode(done) or '[]' }
