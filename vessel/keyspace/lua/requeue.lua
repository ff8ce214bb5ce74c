-- Send a job on: to the next model of its chain with its attempt's ending, or back unstarted (verb = released).
-- KEYS: job events leases tickets queue ledger *buckets
-- ARGV: id generation owner attempt label unknown outcome_row ledger_row from to verb reason message hop tier model queue_name template repr *settle
-- include: record
-- include: ticket
-- include: bucket
-- include: attempt
-- Returns: {done} or {superseded, state}. A lost lease still records the attempt's ending.
local now = now_ms()
end_attempt(job, ledger, id, attempt, label, outcome_row, ledger_row, unknown, 7, 20, now)
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'booking')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  return {'superseded', held[1] or ''}
end
if attempt == '0' and held[4] then
  settle(7, 20, now)
end
redis.call('HSET', job, 'state', to, 'updated', ms(now), 'reason', reason, 'message', message, 'hop', hop,
  'tier', tier, 'model', model, 'queue', queue_name)
redis.call('HDEL', job, 'owner', 'lease', 'booking', 'start_at')
redis.call('ZREM', leases, id)
push_ticket(queue, tickets, template, queue_name, id, generation, repr, now)
emit(events, now, verb, to, generation, reason)
return {'done', to}
