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

-- A trigger is published. Its record has the time until the trigger leaves the queue, so that no second one is published
-- meanwhile.
local function note_published(hash) set(hash, 'published_at', NOW) end

-- A trigger has left its queue, which is first in, first out: triggers that were published before have left it, too.
local newest_left = {}
local function note_left(hash, queue, published_at)
  if not published_at then return end
  local passed = key('passed', queue)
  newest_left[queue] = newest_left[queue] or tonumber(redis.call('GET', passed) or 0) or 0
  if tonumber(published_at) > newest_left[queue] then
    redis.call('SET', passed, published_at)
    newest_left[queue] = tonumber(published_at)
  end
  unset(hash, 'published_at', 'overtaken')
end

-- A message waits, and its trigger is published now or not; returns whether. Those sent as one of many
-- are accepted hundreds at a time, and only then are their triggers published.
local function queue_up(id, from, expires, bulk)
  local publish = room('send', bulk and most_alone() or WATERMARK)
  if publish then
    note_published(key('msg', id))
    if bulk then note_publishing('send', 1) end
  end
  enter(id, from, 'queued', sooner(publish and NOW + GRACE or NOW, expires))
  return publish and 1 or 0
end
