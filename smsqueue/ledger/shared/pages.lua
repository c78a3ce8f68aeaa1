-- Reads an index page by page: a sorted set, highest scores first, entries of one score by descending id. The last page
-- takes no longer than the first.

-- The order of Redis; the operator < of Lua depends on the locale.
local function precedes(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end

-- score, id: of the entry before the page; id '': begin with the first entry of that score
-- least: the lowest score; size: entries at most
-- Returns: { id, score, id, score ... }
local function page_of_index(index, score, id, least, size)
  -- The entry may have left the index, or have another score by now.
  local first = redis.call('ZCOUNT', index, '(' .. score, '+inf')
  if id ~= '' then
    local low, high = 0, redis.call('ZCOUNT', index, score, score)
    while low < high do
      local middle = math.floor((low + high) / 2)
      local member = redis.call('ZREVRANGE', index, first + middle, first + middle)[1]
      if precedes(member, id) then high = middle else low = middle + 1 end
    end
    first = first + low
  end

  local page = {}
  local entries = redis.call('ZREVRANGE', index, first, first + size - 1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    if tonumber(entries[i + 1]) < least then break end
    page[i], page[i + 1] = entries[i], entries[i + 1]
  end
  return page
end
