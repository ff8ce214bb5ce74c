-- Take back a job whose lease is over: the call in flight stays unknown in the ledger, the job is queued again.
-- KEYS: job events idem reply leases deadlines tickets queue ledger *buckets
-- ARGV: id from to_queued to_failed queue_name template repr max_kills ttl_ms poison_reason poison_message unknown *settle
-- include: record
-- include: ticket
-- include: bucket
-- include: attempt
-- Returns: {done} {poisoned} {held, wait_ms} or {stale, state}; safe to run by any number of sweeps at once.
local held = redis.call('HMGET', job, 'state', 'gen', 'lease', 'n', 'kills', 'reply', 'booking')
if not among(from, held[1]) then
  redis.call('ZREM', leases, id)
  return {'stale', held[1] or ''}
end
local now = now_ms()
if tonumber(held[3] or 0) > now then
  return {'held', ms(held[3] - now)}
end
local number, kills = held[4], tonumber(held[5] or 0)
if number and number ~= '0' and redis.call('HEXISTS', job, 'o:' .. number) == 0
  and redis.call('HEXISTS', job, 'l:' .. number) == 0 then
  kills = kills + 1
  book_ledger(job, ledger, id, number, unknown, redis.call('HGET', job, 'u:' .. number), unknown)
end
if held[7] then
  settle(10, 13, now)
end
local generation = held[2] + 1
redis.call('HSET', job, 'gen', generation, 'kills', kills, 'updated', ms(now))
redis.call('HDEL', job, 'owner', 'lease', 'booking', 'start_at')
redis.call('ZREM', leases, id)
if kills < tonumber(max_kills) then
  redis.call('HSET', job, 'state', to_queued)
  push_ticket(queue, tickets, template, queue_name, id, string.format('%d', generation), repr, now)
  emit(events, now, 'rescued', to_queued, generation, '')
  return {'done', ''}
end
redis.call('HSET', job, 'state', to_failed, 'reason', poison_reason, 'message', poison_message, 'finished', ms(now))
redis.call('ZREM', deadlines, id)
emit(events, now, to_failed, to_failed, generation, poison_reason)
redis.call('PEXPIRE', job, ttl_ms)
redis.call('PEXPIRE', events, ttl_ms)
redis.call('PEXPIRE', idem, ttl_ms)
if held[6] and held[6] ~= '' then
  redis.call('XADD', reply, 'MAXLEN', '~', 10000, '*', 'job', id, 'state', to_failed)
  redis.call('PEXPIRE', reply, 3600000)
end
return {'poisoned', ''}
