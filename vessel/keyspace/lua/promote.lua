-- Queue a parked job whose time has come.
-- KEYS: job events parked tickets queue
-- ARGV: id from to queue_name template repr
-- include: record
-- include: ticket
-- Returns: {done} {early, wait_ms} or {stale, state}; safe to run by any number of sweeps at once.
local held = redis.call('HMGET', job, 'state', 'gen', 'until')
if not among(from, held[1]) then
  redis.call('ZREM', parked, id)
  return {'stale', held[1] or ''}
end
local now = now_ms()
if tonumber(held[3] or 0) > now then
  return {'early', ms(held[3] - now)}
end
redis.call('HSET', job, 'state', to, 'updated', ms(now))
redis.call('HDEL', job, 'until')
redis.call('ZREM', parked, id)
push_ticket(queue, tickets, template, queue_name, id, held[2], repr, now)
emit(events, now, 'promoted', to, held[2], '')
return {'done', ''}
