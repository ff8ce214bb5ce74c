-- End a job: attempt, ledger, settlement, state, result and event in one step.
-- A valid answer (valid = 1) wins from any open state, also out of a lost lease; anything else must hold the lease, and
-- so must an answer to a job whose first pieces have been streamed: they are another call's, unless it holds the lease.
-- A call that the winner finds in flight under another lease is booked as unknown until it ends itself.
-- A record that is gone (power loss, TTL) still leaves its paid call in the ledger.
-- KEYS: job events tokens idem reply leases parked deadlines tickets ledger sums tag_sums
-- KEYS: gate bookings inflight budget whole backlog flows groups
-- KEYS: batch batch_calls spend_events lines_out lines_err lines_open open_batches
-- KEYS: webhooks_due webhooks_log job_hook batch_hook
-- KEYS: failures
-- ARGV: id generation owner attempt label late_label unknown failed outcome_row ledger_row valid from when_running to ttl_ms
-- ARGV: configured back_requests back_prompt back_output back_nano group flow *fields
-- include: record
-- include: gate
-- include: budget
-- include: rollup
-- include: owner
-- include: attempt
-- include: backlog
-- include: webhook
-- include: ended
-- include: failures
-- include: batch
-- Returns: {finished, state} {late, state} {superseded, state} {missing}. Repeating the call changes nothing.
local now = now_ms()
local back = {gate = gate, bookings = bookings, inflight = inflight, configured = configured,
  budget = budget, whole = whole, batch = batch, batch_calls = batch_calls, spend_events = spend_events,
  requests = back_requests, prompt = back_prompt, output = back_output, nano = back_nano}
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'ended_by', 'streamed')
local open = among(from, held[1])
local owned = held[1] == when_running and held[2] == generation and held[3] == owner
local used = open and (owned or valid == '1' and not held[5])
local call = {job = job, ledger = ledger, sums = sums, tag_sums = tag_sums, batch = batch, id = id, number = attempt,
  owner = owner, unknown = unknown, failed = failed, ttl_ms = ttl_ms, answers = valid == '1' and used}
end_attempt(call, (valid == '1' and not used) and late_label or label, outcome_row, ledger_row, back, now)
if not held[1] then
  return {'missing', ''}
end
if attempt == '0' then
  free_booking(job, generation, gate, bookings)
end
if not used then
  if held[4] == owner then
    return {'finished', held[1]}
  end
  return {open and 'superseded' or 'late', held[1]}
end
if not owned then
  book_cut(call)
end
local fields = {}
for i = MORE_ARGS, #ARGV do fields[#fields + 1] = ARGV[i] end
local next_generation = held[2] + 1
redis.call('HSET', job, 'state', to, 'gen', next_generation, 'updated', ms(now), 'finished', ms(now),
  'ended_by', owner, unpack(fields))
redis.call('HDEL', job, 'owner', 'lease', 'until')
take_from_backlog(backlog, flows, groups, group, flow, id, 0)
redis.call('ZREM', leases, id)
redis.call('ZREM', parked, id)
redis.call('ZREM', deadlines, id)
redis.call('ZREM', tickets, id)
emit(events, now, to, to, next_generation, call.number)
local hooks = {due = webhooks_due, log = webhooks_log, job = job_hook, batch = batch_hook}
line_ended(batch, lines_out, lines_err, lines_open, open_batches, hooks, job, to, now)
ended(job, events, tokens, idem, reply, hooks, id, to, kept_ms(batch, job, ttl_ms, now), now)
forget_events(job, events)
if valid ~= '1' then note_failure(failures, id, ttl_ms, now) end
return {'finished', to}
