-- Moves an event into a state and makes it due at a time. In 'waiting' and 'running' its score by state is when it first
-- began to wait for its handlers.
local function place(event, state, look)
  local hash, entered = key('event', event), NOW
  local e = read(hash, 'since', 'bulk')
  set(hash, 'state', state)
  if state ~= 'parked' then
    entered = e.since or NOW
    if not e.since then set(hash, 'since', NOW) end
  end
  index_add(state_key(state), entered, event)
  local lane = lane_for('hook', e.bulk)
  index_add(due_key(lane), look, event)
  -- It may come from the other lane.
  if e.bulk then index_remove(due_key(lane == 'hook' and 'hook_bulk' or 'hook'), event) end
end

-- Changes when an event is due, in whichever lane it is.
local function look_at_event(event, look)
  redis.call('ZADD', due_key('hook'), 'XX', look, event)
  redis.call('ZADD', due_key('hook_bulk'), 'XX', look, event)
end

-- Is a message bulk? A damaged one is not.
local function is_bulk_message(id)
  local well, bulk = pcall(get, key('msg', id), 'bulk')
  return well and bulk == '1'
end

-- Assigns an event to its message, and to the lane of that message.
local function set_message(event, id)
  set(key('event', event), 'message', id)
  if is_bulk_message(id) then set(key('event', event), 'bulk', 1) end
end

-- Makes an event wait for its handlers. Returns it if the caller of the script is to publish its trigger; '': upkeep
-- publishes it.
-- bulk: it is one of many that an operator has changed, so single ones come before it
local function hand_over(event, bulk)
  local hash = key('event', event)
  if bulk then set(hash, 'bulk', 1) end
  local publish = not bulk and room('hook', get(hash, 'bulk') and most_alone() or WATERMARK)
  if publish then note_published(hash) end
  unset(hash, 'not_before')
  set(hash, 'since', NOW)
  place(event, 'waiting', publish and NOW + GRACE or NOW)
  return publish and event or ''
end

-- Makes an event wait until a time: 'waiting' for a retry, or 'parked' for its message or its other parts.
local function put_off(event, state, ends)
  set(key('event', event), 'not_before', ends)
  place(event, state, ends)
end

local function put_event(event, kind, message, data)
  new_hash(key('event', event))
  set(key('event', event), 'kind', kind, 'data', data)
  if message then set_message(event, message) end
end

-- Records an event for the handlers. bulk, returns: as hand_over.
local function add_event(event, kind, message, data, bulk)
  put_event(event, kind, message, data)
  return hand_over(event, bulk)
end

-- Ends the wait of an event. Returns as hand_over.
local function unpark(event)
  index_remove(state_key('parked'), event)
  return hand_over(event)
end

-- Records an event for onStatus about an end that no provider reports. bulk, returns: as hand_over.
local function add_ending(event, id, class, why, code, bulk)
  local status = { class = class, status = why, status_code = code, id = id }
  return add_event(event, 'status', id, cjson.encode(status), bulk)
end
