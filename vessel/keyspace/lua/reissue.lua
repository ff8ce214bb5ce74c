-- Issue a lost ticket anew; the generation grows, so the old one drops should it turn up.
-- KEYS: job events tickets queue
-- ARGV: id generation from queue_name template repr
-- include: record
-- include: ticket
-- Returns: {done} or {stale, state}; safe to run by any number of sweeps at once.
local held = redis.call('HMGET', job, 'state', 'gen', 'queue')
if not among(from, held[1]) or held[3] ~= queue_name then
  redis.call('ZREM', tickets, id)
  return {'stale', held[1] or ''}
end
if held[2] ~= generation then
  return {'stale', held[1]}
end
local now = now_ms()
redis.call('HSET', job, 'gen', generation + 1, 'updated', ms(now))
push_ticket(queue, tickets, template, queue_name, id, string.format('%d', generation + 1), repr, now)
emit(events, now, 'reissued', held[1], generation + 1, '')
return {'done', ''}
