-- Take a queued job: only the ticket of the current generation does; the generation grows and a lease begins.
-- KEYS: job events leases tickets
-- ARGV: id ticket_generation owner lease_ms from to
-- include: record
-- Returns: {claimed, record...} or {stale, state} or {missing}. Repeating it with the same owner returns the claim.
local held = redis.call('HMGET', job, 'state', 'gen', 'owner')
if not held[1] then
  redis.call('ZREM', tickets, id)
  return {'missing'}
end
local mine = held[1] == to and held[3] == owner and tonumber(held[2]) == ticket_generation + 1
if not mine then
  if not among(from, held[1]) then
    return {'stale', held[1]}
  end
  if tonumber(held[2]) ~= tonumber(ticket_generation) then
    return {'stale', held[1]}
  end
  local now = now_ms()
  redis.call('HSET', job, 'state', to, 'gen', ticket_generation + 1, 'owner', owner, 'lease', ms(now + lease_ms),
    'updated', ms(now))
  redis.call('ZADD', leases, ms(now + lease_ms), id)
  redis.call('ZREM', tickets, id)
  emit(events, now, 'claimed', to, ticket_generation + 1, owner)
end
return {'claimed', redis.call('HGETALL', job)}
