-- Stop a batch: lines that have no job yet end at once, those that have one end with it, and the last one ends the batch.
-- KEYS: batch lines_err open_batches webhooks_due webhooks_log batch_hook
-- ARGV: id validating going stopping ends_as line_state only_when_over
-- include: record
-- include: webhook
-- include: batch
-- Returns: {stopped|ended|early|missing, status}; `going` are the statuses that can be stopped. It may be repeated.
local held = redis.call('HMGET', batch, 'status', 'expires', 'groups')
if not held[1] then
  redis.call('ZREM', open_batches, id)
  return {'missing', ''}
end
local now = now_ms()
if only_when_over == '1' and tonumber(held[2]) > now then return {'early', held[1]} end
if not among(going, held[1]) then return {'ended', held[1]} end
if held[1] == validating then
  redis.call('HSET', batch, 'left', 0)
  redis.call('HDEL', batch, 'owner', 'owned_until')
end
redis.call('HSET', batch, 'status', stopping, 'at:' .. stopping, ms(now), 'ends_as', ends_as, 'updated', ms(now))
for group = 0, tonumber(held[3]) - 1 do
  local lines = redis.call('HMGET', batch, 't:' .. group, 'next:' .. group)
  local without = lines[1] - lines[2]
  if without > 0 then
    redis.call('RPUSH', lines_err, group .. ':' .. lines[2] .. '-' .. lines[1] .. ' ' .. line_state)
    redis.call('PEXPIRE', lines_err, redis.call('PTTL', batch))
    redis.call('HSET', batch, 'next:' .. group, lines[1])
    redis.call('HINCRBY', batch, 'e:' .. group, ms(without))
    redis.call('HINCRBY', batch, 'n:' .. line_state, ms(without))
    redis.call('HINCRBY', batch, 'left', ms(-without))
  end
end
end_batch(batch, open_batches, {due = webhooks_due, log = webhooks_log, batch = batch_hook}, now)
return {'stopped', redis.call('HGET', batch, 'status')}
