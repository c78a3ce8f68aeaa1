-- Opt-outs. `optout:<hash of the number>` is a hash: `number`, and for each opt-out a field '<sender>|<category>' ('*':
-- all) with its cause and time (JSON). `optouts` is the index of these hashes by when they last changed.

-- The sender of a message as opt-outs name it: the digits of a phone number, any other text unchanged; nil: it names none,
-- or one in characters beyond ASCII, which may be a number in digits of another script.
-- Python: opt_out_sender() in message/opt_outs.py
local function opt_out_sender(message, options)
  local text = options.senderId
  if type(text) ~= 'string' or text == '' then text = message.src end
  if type(text) ~= 'string' or text == '' or string.find(text, '[\128-\255]') then return nil end
  local bare = string.gsub(string.lower(text), '^tel:', '')
  if not string.match(bare, '^[%d%s+()./-]+$') then return text end
  local digits = string.gsub(bare, '%D', '')
  return (string.gsub(digits, '^00', ''))
end

-- Does the recipient of a message want none?
-- m: of its record: number, former_number, data; exempt: categories that go out anyway, with a space around each
local function has_opted_out(m, exempt)
  local hash = key('optout', m.number or '')
  if redis.call('EXISTS', hash) == 0 then
    if not m.former_number then return false end
    hash = key('optout', m.former_number)
    if redis.call('EXISTS', hash) == 0 then return false end
  end
  local well, message = pcall(cjson.decode, m.data or '')
  if not well or type(message) ~= 'table' then return false end -- whoever loads it reports the damage
  local options = type(message.options) == 'table' and message.options or {}
  local category = options.category
  if type(category) ~= 'string' then category = nil end
  if category and string.find(exempt, ' ' .. category .. ' ', 1, true) then return false end
  local sender = opt_out_sender(message, options)
  local names = redis.pcall('HKEYS', hash)
  if names.err then return true end -- of the wrong type: there was an opt-out, but nobody knows of what
  for _, name in ipairs(names) do
    local from, of = string.match(name, '^(.*)|([^|]*)$')
    -- The provider may choose any sender for a message that names none.
    if from and (from == '*' or not sender or from == sender) and (of == '*' or of == category) then return true end
  end
  return false
end

local function add_opt_out(number_hash, number, scope, why, by)
  local hash = key('optout', number_hash)
  redis.call('HSET', hash, 'number', number, scope, cjson.encode({ at = NOW, why = why, by = by }))
  index_add(key('optouts'), NOW, number_hash)
end

-- Ends opt-outs of a number. A sender of '*' ends those of all senders. One that a provider reported is of a sender that
-- is not known, so it ends with that of any sender.
-- Returns: how many have ended
local function end_opt_outs(number_hash, scope)
  local hash, ended = key('optout', number_hash), 0
  local sender, category = string.match(scope, '^(.*)|([^|]*)$')
  for _, name in ipairs(redis.call('HKEYS', hash)) do
    local from, of = string.match(name, '^(.*)|([^|]*)$')
    local is_of_sender = from and (sender == '*' or from == sender or
        from == '*' and string.find(redis.call('HGET', hash, name), '"by":"provider"', 1, true))
    if is_of_sender and (category == '*' or of == category) then
      ended = ended + redis.call('HDEL', hash, name)
    end
  end
  if ended > 0 then
    if redis.call('HLEN', hash) <= 1 then
      redis.call('DEL', hash)
      index_remove(key('optouts'), number_hash)
    else
      index_add(key('optouts'), NOW, number_hash)
    end
  end
  return ended
end

-- Ends a message whose recipient has opted out, before a provider is called.
-- Returns: the event to publish, or ''
local function refuse_opted_out(id, from, event)
  note(id, { state = 'failed', error = 'OptedOut', why = 'the recipient wants no messages' })
  local published = add_ending(event, id, 'MessageError', 'failed: OptedOut')
  enter(id, from, 'failed', nil, 'OptedOut')
  count('policy', 'opted_out')
  return published
end

-- Records that a provider refused a message because its recipient had opted out there.
local function note_opt_out(hash, provider, code)
  local m = read(hash, 'number', 'data')
  local well, message = pcall(cjson.decode, m.data or '')
  if not (well and m.number and type(message) == 'table' and type(message.dst) == 'string') then return end
  local options = type(message.options) == 'table' and message.options or {}
  local sender = opt_out_sender(message, options) or '*'
  add_opt_out(m.number, message.dst, sender .. '|*', provider .. (code and ' ' .. code or ''), 'provider')
end
