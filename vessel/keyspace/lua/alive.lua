-- Count the workers that serve each tier.
-- KEYS: *tiers
-- ARGV: silent_ms
-- include: record
-- Returns: one count per tier.
local since = ms(now_ms() - silent_ms)
local counts = {}
for k = 1, #KEYS do
  counts[k] = redis.call('ZCOUNT', KEYS[k], since, '+inf')
end
return counts
