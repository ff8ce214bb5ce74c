-- Send a job on: to the next model of its chain with its attempt's ending, or back unstarted (verb = released).
-- KEYS: job events leases tickets queue ledger sums tag_sums gate bookings inflight fed
-- KEYS: budget whole batch batch_calls spend_events
-- ARGV: id generation owner attempt label unknown failed outcome_row ledger_row ttl_ms
-- ARGV: from to verb reason message hop tier model queue_name unfit template repr
-- ARGV: configured back_requests back_prompt back_output back_nano
-- include: record
-- include: ticket
-- include: gate
-- include: budget
-- include: rollup
-- include: owner
-- include: attempt
-- Returns: {done} or {superseded, state}. A lost lease still records the attempt's ending.
local now = now_ms()
local back = {gate = gate, bookings = bookings, inflight = inflight, configured = configured,
  budget = budget, whole = whole, batch = batch, batch_calls = batch_calls, spend_events = spend_events,
  requests = back_requests, prompt = back_prompt, output = back_output, nano = back_nano}
local call = {job = job, ledger = ledger, sums = sums, tag_sums = tag_sums, batch = batch, id = id, number = attempt,
  owner = owner, unknown = unknown, failed = failed, ttl_ms = ttl_ms}
end_attempt(call, label, outcome_row, ledger_row, back, now)
free_booking(job, generation, gate, bookings)
redis.call('ZREM', fed, id)
local held = redis.call('HMGET', job, 'state', 'gen', 'owner')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  return {'superseded', held[1] or ''}
end
redis.call('HSET', job, 'state', to, 'updated', ms(now), 'reason', reason, 'message', message, 'hop', hop,
  'tier', tier, 'model', model, 'queue', queue_name)
if unfit ~= '' then redis.call('HSET', job, 'unfit', unfit) end
redis.call('HDEL', job, 'owner', 'lease')
redis.call('ZREM', leases, id)
push_ticket(job, queue, tickets, template, queue_name, id, generation, repr, now)
emit(events, now, verb, to, generation, reason)
return {'done', to}
