-- Makes a waiting event due again soon, but not before its time: its trigger came while the worker had no room.
-- ARGV: event, delay (ms)
local hash = key('event', ARGV[1])
local e = read(hash, 'state', 'published_at', 'not_before')
note_left(hash, 'hook', e.published_at)
if e.state == 'waiting' or e.state == 'parked' then
  local look = math.max(NOW + tonumber(ARGV[2]), tonumber(e.not_before or 0))
  look_at_event(ARGV[1], look)
end
return 1
