-- Records an incoming message as an event for onReceive.
-- ARGV: event, repetition (hash that repeated webhooks share, or ''), data, number (hash), provider, repetition with
--       the former hash key (hash or ''); if the message asks for an opt-out or for its end, the arguments of
--       opt_out.lua
-- Returns: 'recorded' | 'repeat', event, event again if it is to be published, or ''
--          | 'full', why it is refused ('memory' | 'quota'), ''
local event = ARGV[1]
local seen = ARGV[2] ~= '' and key('seen', ARGV[2])
local former = ARGV[6] ~= '' and key('seen', ARGV[6])
local before = seen and redis.call('GET', seen) or former and redis.call('GET', former)
if before then
  count('incoming', ARGV[5], 'repeated')
  return { 'repeat', before, '' }
end
local bytes = #ARGV[3] + WEBHOOK_NEW
local refusal = refusal_of_webhook(ARGV[5], bytes)
if refusal then
  count('webhooks_refused', ARGV[5], refusal)
  return { 'full', refusal, '' }
end
local publish = add_event(event, 'received', nil, ARGV[3])
set(key('event', event), 'number', ARGV[4])
hold_webhook(event, ARGV[5], bytes, MARKS)
index_add(key('number', ARGV[4]), NOW, event)
count('incoming', ARGV[5], 'recorded')
if ARGV[7] then
  local number, former_number, scope = ARGV[7], ARGV[8], ARGV[10]
  if ARGV[13] == 'add' then
    add_opt_out(number, ARGV[9], scope, ARGV[11], ARGV[12])
  else
    end_opt_outs(number, scope)
    if former_number ~= '' then end_opt_outs(former_number, scope) end
  end
end
-- Last: if anything fails before, the provider has to repeat the webhook.
if seen then call_last('SET', seen, event, 'PX', REPORT_WAIT) end
if former then call_last('SET', former, event, 'PX', REPORT_WAIT) end
return { 'recorded', event, publish }
