-- Reads a page of an index, see shared/pages.lua.
-- ARGV: name of the index, score and id of the entry before the page (id '': begin with the first entry of that
--       score), lowest score, entries at most
-- Returns: id, score, id, score ...
return page_of_index(key(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
