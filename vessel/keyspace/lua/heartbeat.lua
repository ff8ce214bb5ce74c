-- Say that a worker lives, for every tier it serves, and forget those that have been silent.
-- KEYS: *tiers
-- ARGV: worker silent_ms
-- include: record
-- Returns: the time.
local FORGOTTEN_AFTER_MS = 60000
local now = now_ms()
for k = 1, #KEYS do
  redis.call('ZADD', KEYS[k], ms(now), worker)
  redis.call('ZREMRANGEBYSCORE', KEYS[k], '-inf', ms(now - silent_ms))
  redis.call('PEXPIRE', KEYS[k], FORGOTTEN_AFTER_MS)
end
return ms(now)
