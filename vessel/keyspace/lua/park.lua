-- Let a job wait: for quota, an outage or a retry. No slot and no ticket is held meanwhile.
-- KEYS: job events leases parked ledger *buckets
-- ARGV: id generation owner attempt label unknown outcome_row ledger_row from to delay_ms reason message hop tier model queue_name *settle
-- include: record
-- include: bucket
-- include: attempt
-- Returns: {done, until} or {superseded, state}. A lost lease still records the attempt's ending.
local now = now_ms()
end_attempt(job, ledger, id, attempt, label, outcome_row, ledger_row, unknown, 6, 18, now)
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'booking')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  return {'superseded', held[1] or ''}
end
if attempt == '0' and held[4] then
  settle(6, 18, now)
end
local due = now + delay_ms
redis.call('HSET', job, 'state', to, 'updated', ms(now), 'until', ms(due), 'reason', reason, 'message', message,
  'hop', hop, 'tier', tier, 'model', model, 'queue', queue_name)
redis.call('HDEL', job, 'owner', 'lease', 'booking', 'start_at')
redis.call('ZREM', leases, id)
redis.call('ZADD', parked, ms(due), id)
emit(events, now, to, to, generation, reason)
return {'done', ms(due)}
