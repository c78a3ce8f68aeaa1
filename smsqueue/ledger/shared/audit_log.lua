-- The audit: who did what, to how many records. `audit` lists the entries by the time of their first operation, and
-- `audit:<id>` holds one. The script that changes a record counts it in the entry of its action, so that a process that
-- dies leaves both or neither.
-- Single operations of one action by one person are one entry if each follows within MERGED_WITHIN ms of the one before,
-- for MERGED_FOR ms at most: an application that cancels message by message fills no memory.
local MOST_ENTRIES, MOST_NAMED, MERGED_WITHIN, MERGED_FOR = 10000, 10, 60000, 3600000
-- The action of the running script as JSON: the fields of Action in audit_log.py; '': it is not recorded.
local audited_action, audited_fields, audited_entry = '', nil, nil
local audit_counts, audited_ids = {}, {}

local function action_fields()
  if not audited_fields and audited_action ~= '' then audited_fields = cjson.decode(audited_action) end
  return audited_fields
end

-- Who runs the script; nil: not known.
local function operator_name()
  local action = action_fields()
  return action and action.by
end

local function forget_audit_entries(ids)
  for _, id in ipairs(ids) do
    redis.call('DEL', key('audit', id))
    redis.call('ZREM', key('audit'), id)
  end
end

-- The entry that a single operation continues; nil: there is none.
local function former_entry(same)
  local id = redis.call('GET', same)
  local began = id and tonumber(redis.call('HGET', key('audit', id), 'at') or nil)
  return began and NOW - began < MERGED_FOR and key('audit', id) or nil
end

-- The hash of the action's entry; makes it if there is none.
-- matched: how many records the action is about, or ''
local function audit_entry(matched)
  local action = action_fields()
  if not action or audited_entry then return audited_entry end
  audited_entry = key('audit', action.id)
  if redis.call('EXISTS', audited_entry) == 1 then return audited_entry end
  if action.single then
    local same = key('audit_same', action.same)
    local former = former_entry(same)
    if former then
      redis.call('PEXPIRE', same, MERGED_WITHIN)
      audited_entry = former
      return former
    end
    redis.call('SET', same, action.id, 'PX', MERGED_WITHIN)
  end
  local index = key('audit')
  forget_audit_entries(redis.call('ZRANGEBYSCORE', index, '-inf', NOW - RETENTION, 'LIMIT', 0, 100))
  forget_audit_entries(redis.call('ZRANGE', index, 0, -MOST_ENTRIES))
  redis.call('ZADD', index, NOW, action.id)
  redis.call('PEXPIRE', index, RETENTION)
  redis.call('HSET', audited_entry, 'at', NOW, 'by', action.by, 'host', action.host, 'action', action.action,
             'details', action.details, 'matched', matched or '', 'single', action.single and 1 or '')
  redis.call('PEXPIRE', audited_entry, RETENTION)
  return audited_entry
end

-- Counts records that the action changed ('done') or could not change ('refused').
-- id: one that it changed; the entry names the first MOST_NAMED
local function audit_count(result, number, id)
  audit_counts[result] = (audit_counts[result] or 0) + number
  if id and #audited_ids < MOST_NAMED then audited_ids[#audited_ids + 1] = id end
end

local function write_audit()
  local entry = next(audit_counts) and audit_entry()
  if not entry then return end
  redis.call('HSET', entry, 'last', NOW)
  for result, number in pairs(audit_counts) do redis.call('HINCRBY', entry, result, number) end
  local names = redis.call('HGET', entry, 'ids') or ''
  local _, known = string.gsub(names, '%S+', '')
  if known < MOST_NAMED and #audited_ids > 0 then
    for i = 1, math.min(#audited_ids, MOST_NAMED - known) do names = names .. ' ' .. audited_ids[i] end
    redis.call('HSET', entry, 'ids', names)
  end
end

-- Runs the script of an operator, for one item or for a group. The last argument is the action, or ''. What a script does
-- not count itself was refused.
local function run_audited(kind, run, run_all)
  audited_action = table.remove(ARGV)
  local well, answer = pcall(run_all, kind, function(args)
    local done, refused = audit_counts.done, audit_counts.refused
    local result = run(args)
    if done == audit_counts.done and refused == audit_counts.refused then audit_count('refused', 1) end
    return result
  end)
  write_audit()
  if not well then error(answer, 0) end
  return answer
end
