-- Let a parked job go on whose time has come: into the backlog, from which it is fed in its turn; one that already waits
-- there (waits = 1) is looked at all the same, with a ticket.
-- KEYS: job events parked tickets queue backlog flows groups
-- ARGV: id from to queue_name template repr group flow
-- include: record
-- include: ticket
-- include: backlog
-- Returns: {done} {early, wait_ms} or {stale, state}; safe to run by any number of sweeps at once.
local held = redis.call('HMGET', job, 'state', 'gen', 'waits', 'created', 'deadline', 'cancel')
if not among(from, held[1]) then
  redis.call('ZREM', parked, id)
  return {'stale', held[1] or ''}
end
local now = now_ms()
local due = tonumber(redis.call('ZSCORE', parked, id) or nil)
if not due then
  return {'stale', held[1]}
end
if due > now then
  return {'early', ms(due - now)}
end
redis.call('HSET', job, 'state', to, 'updated', ms(now))
redis.call('HDEL', job, 'until', 'waits')
redis.call('ZREM', parked, id)
if held[3] == '1' or held[6] == '1' then
  take_from_backlog(backlog, flows, groups, group, flow, id, 0)
  push_ticket(queue, tickets, template, queue_name, id, held[2], repr, now)
else
  put_in_backlog(backlog, flows, groups, group, flow, id, held[4], held[5])
end
emit(events, now, 'promoted', to, held[2], '')
return {'done', ''}
