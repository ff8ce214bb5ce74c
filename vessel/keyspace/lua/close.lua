-- End a job that does not run: cancel it, or expire it once its deadline passed. A running one gets a cancel flag.
-- KEYS: job events tokens idem reply parked deadlines tickets backlog flows groups
-- KEYS: batch lines_out lines_err lines_open open_batches
-- KEYS: webhooks_due webhooks_log job_hook batch_hook
-- KEYS: failures
-- ARGV: id from when_running to reason message ttl_ms only_after_deadline group flow
-- include: record
-- include: webhook
-- include: ended
-- include: failures
-- include: backlog
-- include: batch
-- Returns: {closed} {flagged} {early} {terminal, state} or {missing}; repeating it changes nothing.
local LOOK_AGAIN_MS = 2000
local held = redis.call('HMGET', job, 'state', 'gen', 'deadline', 'cancel')
if not held[1] then
  redis.call('ZREM', deadlines, id)
  return {'missing', ''}
end
local now = now_ms()
if only_after_deadline == '1' and tonumber(held[3] or now + 1) > now then
  return {'early', ''}
end
if held[1] == when_running then
  if only_after_deadline == '1' then
    -- Its worker keeps the deadline; should it go back to waiting, it expires here.
    redis.call('ZADD', deadlines, 'XX', ms(now + LOOK_AGAIN_MS), id)
    return {'early', ''}
  end
  if held[4] ~= '1' then
    redis.call('HSET', job, 'cancel', '1')
    emit(events, now, 'cancel_requested', held[1], held[2], '')
  end
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
take_from_backlog(backlog, flows, groups, group, flow, id, 0)
emit(events, now, to, to, held[2] + 1, reason)
local hooks = {due = webhooks_due, log = webhooks_log, job = job_hook, batch = batch_hook}
line_ended(batch, lines_out, lines_err, lines_open, open_batches, hooks, job, to, now)
ended(job, events, tokens, idem, reply, hooks, id, to, kept_ms(batch, job, ttl_ms, now), now)
-- What somebody cancelled did not fail.
if reason ~= to then note_failure(failures, id, ttl_ms, now) end
return {'closed', to}
