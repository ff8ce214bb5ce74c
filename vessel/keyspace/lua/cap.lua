-- Set spend caps of one tenant, or of all, in nano-USD; one that is not given stays as it is.
-- KEYS: budget budgets
-- ARGV: tenant day_cap month_cap
-- include: record
-- Returns: the time since which its spending is counted: when its first cap was set.
redis.call('HSETNX', budget, 'since', ms(now_ms()))
redis.call('HSET', budget, 'tenant', tenant)
-- A cap that was changed warns anew.
if day_cap ~= '' then
  redis.call('HSET', budget, 'day_cap', day_cap)
  redis.call('HDEL', budget, 'day_warned', 'day_full')
end
if month_cap ~= '' then
  redis.call('HSET', budget, 'month_cap', month_cap)
  redis.call('HDEL', budget, 'month_warned', 'month_full')
end
redis.call('SADD', budgets, tenant)
return redis.call('HGET', budget, 'since')
