-- Take back a job whose lease is over: the call in flight stays unknown in the ledger, the job is queued again.
-- Too many workers lost in its call (max_kills) or while they held it at all (max_lapses) end it, and so does one after
-- the first pieces of its answer were streamed: another answer would not go on where they end.
-- KEYS: job events tokens idem reply leases deadlines tickets queue ledger sums tag_sums gate bookings inflight
-- KEYS: batch batch_calls lines_out lines_err lines_open open_batches
-- KEYS: webhooks_due webhooks_log job_hook batch_hook
-- KEYS: failures
-- ARGV: id from to_queued to_failed queue_name at_model template repr max_kills max_lapses ttl_ms
-- ARGV: poison_reason poison_message broken_reason broken_message unknown
-- include: record
-- include: ticket
-- include: gate
-- include: budget
-- include: rollup
-- include: owner
-- include: attempt
-- include: webhook
-- include: ended
-- include: failures
-- include: batch
-- Returns: {done} {poisoned} {broken} {held, wait_ms} {stale, state} or {changed} when the caller's reading of the record is
-- not current; safe to run by any number of sweeps at once.
local held = redis.call('HMGET', job, 'state', 'gen', 'lease', 'kills', 'lapses', 'queue', 'at_model',
  'streamed')
if not among(from, held[1]) then
  redis.call('ZREM', leases, id)
  return {'stale', held[1] or ''}
end
local now = now_ms()
if tonumber(held[3] or 0) > now then
  return {'held', ms(held[3] - now)}
end
if held[6] ~= queue_name or (held[7] or '') ~= at_model then
  return {'changed', ''}
end
local kills, lapses = tonumber(held[4] or 0), tonumber(held[5] or 0) + 1
local cut = book_cut({job = job, ledger = ledger, sums = sums, tag_sums = tag_sums, batch = batch, id = id,
  unknown = unknown})
if #cut > 0 then kills = kills + 1 end
for _, number in ipairs(cut) do
  redis.call('ZREM', inflight, id .. '/' .. number)
  redis.call('ZREM', batch_calls, id .. '/' .. number)
end
free_booking(job, held[2], gate, bookings)
local generation = held[2] + 1
redis.call('HSET', job, 'gen', generation, 'kills', kills, 'lapses', lapses, 'updated', ms(now))
redis.call('HDEL', job, 'owner', 'lease')
redis.call('ZREM', leases, id)
if not held[8] and kills < tonumber(max_kills) and lapses < tonumber(max_lapses) then
  redis.call('HSET', job, 'state', to_queued)
  push_ticket(job, queue, tickets, template, queue_name, id, string.format('%d', generation), repr, now)
  emit(events, now, 'rescued', to_queued, generation, '')
  return {'done', ''}
end
local word, reason, message = 'poisoned', poison_reason, poison_message
if held[8] then
  word, reason, message = 'broken', broken_reason, broken_message
end
redis.call('HSET', job, 'state', to_failed, 'reason', reason, 'message', message, 'finished', ms(now))
redis.call('ZREM', deadlines, id)
emit(events, now, to_failed, to_failed, generation, reason)
local hooks = {due = webhooks_due, log = webhooks_log, job = job_hook, batch = batch_hook}
line_ended(batch, lines_out, lines_err, lines_open, open_batches, hooks, job, to_failed, now)
ended(job, events, tokens, idem, reply, hooks, id, to_failed, kept_ms(batch, job, ttl_ms, now), now)
note_failure(failures, id, ttl_ms, now)
return {word, ''}
