-- Let a parked job go on whose time has come: into the backlog, from which it is fed in its turn; one that already waits
-- there is looked at all the same, with a ticket.
-- KEYS: job events parked tickets queue backlog flows groups
-- ARGV: id from to queue_name model template repr group flow
-- include: record
-- include: ticket
-- include: backlog
-- Returns: {done} {early, wait_ms} {stale, state} or {changed} when the caller's reading of the record is not current;
-- safe to run by any number of sweeps at once.
local held = redis.call('HMGET', job, 'state', 'gen', 'until', 'created', 'deadline', 'cancel', 'model', 'queue')
if not among(from, held[1]) then
  redis.call('ZREM', parked, id)
  return {'stale', held[1] or ''}
end
if held[7] ~= model or held[8] ~= queue_name then
  return {'changed', ''}
end
local now = now_ms()
local due = tonumber(redis.call('ZSCORE', parked, id) or nil)
if not due then
  return {'stale', held[1]}
end
if due > now then
  return {'early', ms(due - now)}
end
redis.call('ZREM', parked, id)
local waits = take_from_backlog(backlog, flows, groups, group, flow, id, 0)
if not waits and not held[3] then
  return {'stale', held[1]}
end
redis.call('HSET', job, 'state', to, 'updated', ms(now))
redis.call('HDEL', job, 'until', 'waits')
if waits or held[6] == '1' then
  push_ticket(job, queue, tickets, template, queue_name, id, held[2], repr, now)
else
  put_in_backlog(backlog, flows, groups, group, flow, id, held[4], held[5])
end
emit(events, now, 'promoted', to, held[2], '')
return {'done', ''}
