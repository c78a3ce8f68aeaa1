-- Triggers in a broker queue ('send' or 'hook'), with those that are about to be published.
local lengths = {} -- no script adds a trigger
local function length(queue)
  if not lengths[queue] then
    local here = triggers_in(queue == 'hook' and HOOK_QUEUE or SEND_QUEUE)
    lengths[queue] = math.max(here, tonumber(redis.call('GET', key('filled', queue)) or 0) or 0)
  end
  return lengths[queue]
end

-- Has a broker queue room for another trigger? If not, the id stays due, and upkeep publishes it later.
local function room(queue, most) return length(queue) < most end

-- Counts triggers that are about to be published, until they are in the queue: usually so many ms at most. The time runs
-- from the first of them: if each one restarted it, triggers that left the queue long ago would still count.
local PUBLISHING = 50
local function note_publishing(queue, triggers)
  local name = key('filled', queue)
  lengths[queue] = length(queue) + triggers
  if not redis.call('SET', name, lengths[queue], 'PX', PUBLISHING, 'NX') then
    redis.call('SET', name, lengths[queue], 'KEEPTTL')
  end
end

-- Length of a queue from which on a bulk message gets no trigger of its own: upkeep soon publishes many in one, and a
-- single message does not wait behind hundreds of triggers.
local ALONE = 8
local function most_alone() return math.min(ALONE, BULK_WATERMARK) end

-- Is a message that has ended to be published once more, so that monitors see the end of its task? Not while the queue is
-- long, since nothing waits for it.
local function closing() return room('send', WATERMARK) and 1 or 0 end

-- A trigger is published. When that was stays with its record (`out`), so that it is not doubled
-- while it is in the queue.
local function note_out(hash) set(hash, 'out', NOW) end

-- A trigger has left its queue, which is first in, first out: what was published before has left
-- it, too.
local newest_left = {}
local function note_left(hash, queue, out)
  if not out then return end
  local passed = key('passed', queue)
  newest_left[queue] = newest_left[queue] or tonumber(redis.call('GET', passed) or 0) or 0
  if tonumber(out) > newest_left[queue] then
    redis.call('SET', passed, out)
    newest_left[queue] = tonumber(out)
  end
  unset(hash, 'out', 'overtaken')
end

-- A message waits, and its trigger is published now or not; returns whether. Those sent as one of many
-- are accepted hundreds at a time, and only then are their triggers published.
local function queue_up(id, from, expires, bulk)
  local publish = room('send', bulk and most_alone() or WATERMARK)
  if publish then
    note_out(key('msg', id))
    if bulk then note_publishing('send', 1) end
  end
  enter(id, from, 'queued', sooner(publish and NOW + GRACE or NOW, expires))
  return publish and 1 or 0
end
