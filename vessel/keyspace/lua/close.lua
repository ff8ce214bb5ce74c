-- End a job that does not run: cancel it, or expire it once its deadline passed. A running one gets a cancel flag.
-- KEYS: job events idem reply parked deadlines tickets
-- ARGV: id from running to reason message ttl_ms only_after_deadline
-- include: record
-- Returns: {closed} {flagged} {early} {terminal, state} or {missing}; repeating it changes nothing.
local held = redis.call('HMGET', job, 'state', 'gen', 'reply', 'deadline')
if not held[1] then
  redis.call('ZREM', deadlines, id)
  return {'missing', ''}
end
local now = now_ms()
if only_after_deadline == '1' and tonumber(held[4] or now + 1) > now then
  return {'early', ''}
end
if held[1] == running then
  if only_after_deadline == '1' then
    redis.call('ZREM', deadlines, id)
    return {'early', ''}
  end
  redis.call('HSET', job, 'cancel', '1')
  emit(events, now, 'cancel_requested', held[1], held[2], '')
  return {'flagged', held[1]}
end
if not among(from, held[1]) then
  redis.call('ZREM', deadlines, id)
  return {'terminal', held[1]}
end
redis.call('HSET', job, 'state', to, 'gen', held[2] + 1, 'updated', ms(now), 'finished', ms(now), 'reason', reason,
  'message', message)
redis.call('HDEL', job, 'until')
redis.call('ZREM', parked, id)
redis.call('ZREM', deadlines, id)
redis.call('ZREM', tickets, id)
emit(events, now, to, to, held[2] + 1, reason)
redis.call('PEXPIRE', job, ttl_ms)
redis.call('PEXPIRE', events, ttl_ms)
redis.call('PEXPIRE', idem, ttl_ms)
if held[3] and held[3] ~= '' then
  redis.call('XADD', reply, 'MAXLEN', '~', 10000, '*', 'job', id, 'state', to)
  redis.call('PEXPIRE', reply, 3600000)
end
return {'closed', to}
