-- Let a job wait: for quota, an outage or a retry. No slot and no ticket is held meanwhile.
-- One that was asked to end while it ran does not wait: it is promoted at once, and its next claim cancels it.
-- KEYS: job events leases parked ledger *buckets
-- ARGV: id generation owner attempt label unknown outcome_row ledger_row ttl_ms
-- ARGV: from to delay_ms reason message hop tier model queue_name *settle
-- include: record
-- include: bucket
-- include: attempt
-- Returns: {done, until} or {superseded, state}. A lost lease still records the attempt's ending.
local now = now_ms()
local call = {job = job, ledger = ledger, id = id, number = attempt, owner = owner, unknown = unknown, ttl_ms = ttl_ms}
end_attempt(call, label, outcome_row, ledger_row, MORE_KEYS, MORE_ARGS, now)
free_booking(job, generation, MORE_KEYS, MORE_ARGS, now)
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'cancel')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  return {'superseded', held[1] or ''}
end
local due = held[4] == '1' and now or now + delay_ms
redis.call('HSET', job, 'state', to, 'updated', ms(now), 'until', ms(due), 'reason', reason, 'message', message,
  'hop', hop, 'tier', tier, 'model', model, 'queue', queue_name)
redis.call('HDEL', job, 'owner', 'lease')
redis.call('ZREM', leases, id)
redis.call('ZADD', parked, ms(due), id)
emit(events, now, to, to, generation, reason)
return {'done', ms(due)}
