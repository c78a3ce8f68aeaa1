-- Estimates how many waiting messages each tag has, from some of them that are evenly spaced in their states.
-- ARGV: how many to read at most, tags at most
-- Returns: waiting messages, messages that were read, tag, messages (rounded), tag, messages ..., the largest first. If
--          not all were read, without tags that had fewer than four of those that were.
local most, most_tags = tonumber(ARGV[1]), tonumber(ARGV[2])
local FEWEST = 4
local sizes, total = {}, 0
for _, state in ipairs({ 'queued', 'scheduled', 'retrying' }) do
  local size = redis.pcall('ZCARD', state_key(state))
  sizes[state] = type(size) == 'number' and size or 0
  total = total + sizes[state]
end

local number_read, reads, estimates = 0, {}, {}
for state, size in pairs(sizes) do
  local here = total <= most and size or math.ceil(most * size / total)
  for i = 1, here do
    local place = math.floor((i - 1) * size / here)
    local id = redis.call('ZRANGE', state_key(state), place, place)[1]
    -- An account that may read no messages sees no tags.
    local tags = id and redis.pcall('HGET', key('msg', id), 'tags')
    number_read = number_read + 1
    if type(tags) == 'string' then
      for _, name in ipairs(tags_of(tags)) do
        reads[name] = (reads[name] or 0) + 1
        estimates[name] = (estimates[name] or 0) + size / here
      end
    end
  end
end

local names = {}
for name in pairs(estimates) do
  if total <= most or reads[name] >= FEWEST then names[#names + 1] = name end
end
table.sort(names, function(a, b)
  if estimates[a] ~= estimates[b] then return estimates[a] > estimates[b] end
  return precedes(a, b)
end)
local answer = { total, number_read }
for i = 1, math.min(#names, most_tags) do
  with_list(answer, { names[i], math.floor(estimates[names[i]] + 0.5) })
end
return answer
