-- End a batch's validation: it goes, with so many lines in each group, or has failed with a report.
-- KEYS: batch open_batches webhooks_due webhooks_log batch_hook
-- ARGV: id owner status to ends_as groups errors models
-- include: record
-- include: webhook
-- Returns: done, or lost where another one validates it or it is not to be validated any more.
local held = redis.call('HMGET', batch, 'status', 'owner')
if held[1] ~= status or held[2] ~= owner then return 'lost' end
local now = now_ms()
redis.call('HDEL', batch, 'owner', 'owned_until')
redis.call('HSET', batch, 'status', to, 'at:' .. to, ms(now), 'updated', ms(now))
if errors ~= '' then
  redis.call('HSET', batch, 'errors', errors)
  redis.call('ZREM', open_batches, id)
  batch_webhook({due = webhooks_due, log = webhooks_log, batch = batch_hook}, batch,
    redis.call('HGET', batch, 'webhook'), id, to, now)
  return 'done'
end
local count, total = 0, 0
for lines in string.gmatch(groups, '%d+') do
  redis.call('HSET', batch, 't:' .. count, lines, 'next:' .. count, 0)
  count, total = count + 1, total + lines
end
redis.call('HSET', batch, 'groups', count, 'total', ms(total), 'left', ms(total), 'ends_as', ends_as, 'model', models)
return 'done'
