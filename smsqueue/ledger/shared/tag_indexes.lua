-- Tags of messages. A record's field `tags` holds them, joined by a space; each tag has an index of the ids of its
-- messages by when they were accepted. The index names no message whose record has been deleted.
local MOST_TAGS = 20 -- of one message, as in messages.py

-- A message's tags as a list.
local function tags_of(tags)
  local list = {}
  for tag in string.gmatch(tags or '', '%S+') do
    if #list >= MOST_TAGS then break end
    list[#list + 1] = tag
  end
  return list
end

-- Names of the indexes of a message's tags.
local function tag_indexes(tags)
  local names = tags_of(tags)
  for i, tag in ipairs(names) do names[i] = key('tag', tag) end
  return names
end

local function has_tag(tags, tag)
  return tags and string.find(' ' .. tags .. ' ', ' ' .. tag .. ' ', 1, true) ~= nil
end

-- Removes a message that is deleted from the indexes of its tags.
local function forget_tags(id, tags)
  for _, name in ipairs(tag_indexes(tags)) do index_remove(name, id) end
end

-- Bytes that a message's tags take beyond its `data`: the field of its record, and for each tag an entry of an index, or
-- an index of its own. Measured by tests/ledger/test_tags.py and rounded up.
local BYTES_OF_TAG = 300
local function bytes_of_tags(tags)
  if not tags or tags == '' then return 0 end
  return 2 * #tags + #tag_indexes(tags) * BYTES_OF_TAG
end
