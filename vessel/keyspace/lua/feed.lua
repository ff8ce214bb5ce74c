-- Issue the ticket of a job that waits in the backlog, just ahead of its admission: into its queue (`was`) or, where
-- nobody serves that one, into another.
-- KEYS: job events parked tickets queue backlog flows groups fed gate
-- ARGV: id from to queue_name was template repr group flow tokens least lane waited_ms
-- `least` raises what the flow was given so far; `waited_ms` is how long the lane has had no start, 0 where it had one.
-- include: record
-- include: ticket
-- include: backlog
-- Returns: {done} or {stale, state}; safe to run by any number of sweeps at once: one of them takes the job out.
local FED_TTL_MS, FED_LATE_MS = 60000, 3000
redis.call('ZADD', flows, 'XX', 'GT', least, flow)
if not take_from_backlog(backlog, flows, groups, group, flow, id, tokens) then
  return {'stale', ''}
end
local held = redis.call('HMGET', job, 'state', 'gen', 'queue')
if not among(from, held[1]) or held[3] ~= was then
  return {'stale', held[1] or ''}
end
local now = now_ms()
redis.call('HSET', job, 'state', to, 'queue', queue_name, 'updated', ms(now))
redis.call('HDEL', job, 'until', 'waits')
redis.call('ZREM', parked, id)
push_ticket(job, queue, tickets, template, queue_name, id, held[2], repr, now)
redis.call('ZADD', fed, ms(now), id)
redis.call('ZREMRANGEBYSCORE', fed, '-inf', ms(now - FED_LATE_MS))
redis.call('PEXPIRE', fed, FED_TTL_MS)
if tonumber(waited_ms) > 0 and redis.call('EXISTS', gate) == 1 then
  redis.call('HSETNX', gate, 'since:' .. lane, ms(now - waited_ms))
end
emit(events, now, 'fed', to, held[2], '')
return {'done', ''}
