-- Let a webhook be delivered again from now on, with all its attempts anew; its id stays, so that a receiver sees that.
-- KEYS: due webhook
-- ARGV: id
-- include: record
-- include: webhook
-- Returns: due or missing.
local url = redis.call('HGET', webhook, 'url')
if not url then return 'missing' end
local now = now_ms()
redis.call('HSET', webhook, 'round', 0, 'next', ms(now))
redis.call('HDEL', webhook, 'status', 'ended')
redis.call('ZADD', due, ms(now), webhook_member(id, url))
if redis.call('PTTL', webhook) < WEBHOOK_MS then redis.call('PEXPIRE', webhook, WEBHOOK_MS) end
return 'due'
