-- Let a job wait: for quota, an outage or a retry. No slot and no ticket is held meanwhile.
-- What waits for the gate (in_backlog = 1) goes into the backlog, from which it is fed when the gate has room; `delay_ms`
-- is then only what is told, and look_ms (0: never) when it is to be looked at again all the same. Else it waits for a
-- time.
-- One that was asked to end while it ran does not wait: it is promoted at once, and its next claim cancels it.
-- KEYS: job events leases parked ledger sums tag_sums gate bookings inflight fed backlog flows groups
-- KEYS: budget whole batch batch_calls spend_events
-- ARGV: id generation owner attempt label unknown failed outcome_row ledger_row ttl_ms
-- ARGV: from to delay_ms reason message hop tier model queue_name unfit
-- ARGV: configured back_requests back_prompt back_output back_nano in_backlog look_ms group flow
-- include: record
-- include: gate
-- include: budget
-- include: rollup
-- include: owner
-- include: attempt
-- include: backlog
-- Returns: {done, until} or {superseded, state}. A lost lease still records the attempt's ending.
local now = now_ms()
local back = {gate = gate, bookings = bookings, inflight = inflight, configured = configured,
  budget = budget, whole = whole, batch = batch, batch_calls = batch_calls, spend_events = spend_events,
  requests = back_requests, prompt = back_prompt, output = back_output, nano = back_nano}
local call = {job = job, ledger = ledger, sums = sums, tag_sums = tag_sums, batch = batch, id = id, number = attempt,
  owner = owner, unknown = unknown, failed = failed, ttl_ms = ttl_ms}
end_attempt(call, label, outcome_row, ledger_row, back, now)
free_booking(job, generation, gate, bookings)
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'cancel', 'created', 'deadline')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  return {'superseded', held[1] or ''}
end
local due = held[4] == '1' and now or now + delay_ms
redis.call('HSET', job, 'state', to, 'updated', ms(now), 'until', ms(due), 'reason', reason, 'message', message,
  'hop', hop, 'tier', tier, 'model', model, 'queue', queue_name, 'waits', in_backlog)
if unfit ~= '' then redis.call('HSET', job, 'unfit', unfit) end
redis.call('HDEL', job, 'owner', 'lease')
redis.call('ZREM', leases, id)
redis.call('ZREM', fed, id)
if in_backlog == '1' and held[4] ~= '1' then
  put_in_backlog(backlog, flows, groups, group, flow, id, held[5], held[6])
  if tonumber(look_ms) > 0 then redis.call('ZADD', parked, ms(now + look_ms), id) end
else
  redis.call('ZADD', parked, ms(due), id)
end
emit(events, now, to, to, generation, reason)
return {'done', ms(due)}
