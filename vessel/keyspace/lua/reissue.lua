-- Issue a lost ticket anew; the generation grows, so the old one drops should it turn up.
-- KEYS: job events tickets queue
-- ARGV: id generation issued from queue_name template repr
-- include: record
-- include: ticket
-- Returns: {done} or {stale, state}; safe to run by any number of sweeps at once. `issued` is when the lost ticket was
-- noted in `tickets`: one that was issued since is not lost.
local held = redis.call('HMGET', job, 'state', 'gen', 'queue')
if not among(from, held[1]) or held[3] ~= queue_name then
  redis.call('ZREM', tickets, id)
  return {'stale', held[1] or ''}
end
if held[2] ~= generation or tonumber(redis.call('ZSCORE', tickets, id) or -1) ~= tonumber(issued) then
  return {'stale', held[1]}
end
local now = now_ms()
local next_generation = string.format('%d', generation + 1)
redis.call('HSET', job, 'gen', next_generation, 'updated', ms(now))
push_ticket(job, queue, tickets, template, queue_name, id, next_generation, repr, now)
emit(events, now, 'reissued', held[1], next_generation, '')
return {'done', ''}
