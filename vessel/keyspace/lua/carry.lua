-- Carry a queued job over from a queue that nobody serves (`was`) to one that somebody does; the generation grows, so the
-- old ticket drops should its queue be served again.
-- KEYS: job events tickets queue was_tickets
-- ARGV: id generation was from queue_name template repr
-- include: record
-- include: ticket
-- Returns: {done} or {stale, state}; safe to run by any number of sweeps at once.
local held = redis.call('HMGET', job, 'state', 'gen', 'queue')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= was or not redis.call('ZSCORE', was_tickets, id) then
  return {'stale', held[1] or ''}
end
local now = now_ms()
local next_generation = string.format('%d', generation + 1)
redis.call('ZREM', was_tickets, id)
redis.call('HSET', job, 'gen', next_generation, 'queue', queue_name, 'updated', ms(now))
push_ticket(job, queue, tickets, template, queue_name, id, next_generation, repr, now)
emit(events, now, 'carried', held[1], next_generation, queue_name)
return {'done', ''}
