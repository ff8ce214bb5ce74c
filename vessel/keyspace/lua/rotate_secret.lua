-- Sign a tenant's webhooks with a new secret from now on, and with the ones before it for a while yet.
-- KEYS: secret
-- ARGV: fresh overlap_ms
-- include: record
-- Returns: the time until which the one before signs as well, empty where there was none or no overlap.
local now = now_ms()
local was = redis.call('HGET', secret, 'current')
local flat = redis.call('HGETALL', secret)
for i = 1, #flat, 2 do
  if string.match(flat[i], '^old:') and tonumber(flat[i + 1]) <= now then redis.call('HDEL', secret, flat[i]) end
end
redis.call('HSET', secret, 'current', fresh, 'since', ms(now))
if not was or tonumber(overlap_ms) == 0 then return '' end
redis.call('HSET', secret, 'old:' .. was, ms(now + overlap_ms))
return ms(now + overlap_ms)
