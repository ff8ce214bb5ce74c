-- Take the spend caps of one tenant, or of all, away, with what was counted for them.
-- KEYS: budget budgets
-- ARGV: tenant
-- Returns: 1 where there were any, else 0.
redis.call('SREM', budgets, tenant)
return redis.call('DEL', budget)
