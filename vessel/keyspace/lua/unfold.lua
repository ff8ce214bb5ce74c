-- Make the job of the next line of a batch's group: it waits in the backlog, or has failed, where `broken` says why.
-- Its own deadline and max_wait count from the batch's creation, as it is then that somebody began to wait for it.
-- KEYS: job events batch lines_out lines_err lines_open open_batches index own_index tenants deadlines backlog flows groups
-- KEYS: webhooks_due webhooks_log job_hook batch_hook
-- KEYS: failures
-- ARGV: id tenant line_group position status to broken repr group flow deadline_ms max_wait_ms ttl_ms *fields
-- include: record
-- include: backlog
-- include: webhook
-- include: batch
-- include: failures
-- Returns: made, or stale where the line has its job already or the batch does not go on.
local held = redis.call('HMGET', batch, 'status', 'next:' .. line_group, 't:' .. line_group, 'expires', 'created')
if held[1] ~= status or held[2] ~= position or tonumber(held[2]) >= tonumber(held[3]) then return 'stale' end
local now = now_ms()
local line = line_group .. ':' .. position
local record = {}
for i = MORE_ARGS, #ARGV do record[#record + 1] = ARGV[i] end
redis.call('HINCRBY', batch, 'next:' .. line_group, 1)
redis.call('SADD', lines_open, line)
redis.call('PEXPIRE', lines_open, redis.call('PTTL', batch))
redis.call('HSET', job, 'id', id, 'state', to, 'gen', 0, 'created', ms(now), 'updated', ms(now), 'line', line,
  unpack(record))
redis.call('ZADD', index, ms(now), id)
redis.call('ZADD', own_index, ms(now), id)
redis.call('SADD', tenants, tenant)
emit(events, now, 'created', to, 0, repr)
if broken ~= '' then
  local kept = kept_ms(batch, job, ttl_ms, now)
  redis.call('HSET', job, 'finished', ms(now))
  redis.call('PEXPIRE', job, kept)
  redis.call('PEXPIRE', events, kept)
  local hooks = {due = webhooks_due, log = webhooks_log, job = job_hook, batch = batch_hook}
  line_ended(batch, lines_out, lines_err, lines_open, open_batches, hooks, job, to, now)
  job_webhook(hooks, job, redis.call('HGET', job, 'webhook'), id, to, kept, now)
  note_failure(failures, id, ttl_ms, now)
  return 'made'
end
local deadline = tonumber(held[4])
if tonumber(deadline_ms) > 0 then deadline = math.min(deadline, held[5] + deadline_ms) end
if tonumber(max_wait_ms) > 0 then redis.call('HSET', job, 'asked', held[5]) end
redis.call('HSET', job, 'deadline', ms(deadline))
redis.call('ZADD', deadlines, ms(deadline), id)
-- Lines of one batch go in the order of its file.
put_in_backlog(backlog, flows, groups, group, flow, id, now, deadline + position)
return 'made'
