-- Say that a worker lives, for every tier it serves and with how many slots, and forget those that have been silent.
-- KEYS: slots *tiers
-- ARGV: worker silent_ms slots_here
-- include: record
-- Returns: the time.
local FORGOTTEN_AFTER_MS = 60000
local now = now_ms()
for k = MORE_KEYS, #KEYS do
  redis.call('ZADD', KEYS[k], ms(now), worker)
  for _, silent in ipairs(redis.call('ZRANGE', KEYS[k], '-inf', ms(now - silent_ms), 'BYSCORE')) do
    redis.call('ZREM', KEYS[k], silent)
    redis.call('HDEL', slots, silent)
  end
  redis.call('PEXPIRE', KEYS[k], FORGOTTEN_AFTER_MS)
end
redis.call('HSET', slots, worker, slots_here)
redis.call('PEXPIRE', slots, FORGOTTEN_AFTER_MS)
return ms(now)
