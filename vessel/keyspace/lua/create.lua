-- Write a job, its idempotency key and its ticket in one step; or put it into the backlog: always (issue = 2), or when
-- others of its lane wait there before it (issue = 1).
-- KEYS: job events idem index own_index tenants parked deadlines tickets queue backlog flows groups
-- ARGV: id tenant body_hash use_key issue template queue_name repr deadline_ms look_ms to group flow *fields
-- include: record
-- include: ticket
-- include: backlog
-- Returns: {created|exists|conflict, id}. Repeating the call with the same id changes nothing.
-- In the backlog it is looked at all the same after look_ms, 0 for never.
-- Without a ticket (issue = 0) its message follows: many jobs are written first, and the sweep must not overtake them.
local MESSAGE_FOLLOWS_MS = 10000
if use_key == '1' then
  local known = redis.call('GET', idem)
  if known then
    local other, hash = string.match(known, '^(%S+) (%S+)$')
    if other ~= id then
      return {hash == body_hash and 'exists' or 'conflict', other}
    end
  end
end
if redis.call('EXISTS', job) == 1 then
  return {'created', id}
end
local now = now_ms()
local record = {}
for i = MORE_ARGS, #ARGV do record[#record + 1] = ARGV[i] end
redis.call('HSET', job, 'id', id, 'state', to, 'gen', 0, 'created', ms(now), 'updated', ms(now), unpack(record))
if use_key == '1' then
  redis.call('SET', idem, id .. ' ' .. body_hash)
end
redis.call('ZADD', index, ms(now), id)
redis.call('ZADD', own_index, ms(now), id)
redis.call('SADD', tenants, tenant)
if tonumber(deadline_ms) > 0 then
  redis.call('HSET', job, 'deadline', ms(now + deadline_ms))
  redis.call('ZADD', deadlines, ms(now + deadline_ms), id)
end
if issue == '2' or issue == '1' and redis.call('EXISTS', flows) == 1 then
  local deadline = tonumber(deadline_ms) > 0 and now + deadline_ms or nil
  put_in_backlog(backlog, flows, groups, group, flow, id, now, deadline)
  if tonumber(look_ms) > 0 then redis.call('ZADD', parked, ms(now + look_ms), id) end
elseif issue == '1' then
  push_ticket(job, queue, tickets, template, queue_name, id, '0', repr, now)
else
  redis.call('ZADD', tickets, ms(now + MESSAGE_FOLLOWS_MS), id)
end
emit(events, now, 'created', to, 0, repr)
return {'created', id}
