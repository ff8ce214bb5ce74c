-- The last jobs of a tenant that ended without a result, so that they are found without reading all its jobs.
local FAILURES_KEPT = 100

local function note_failure(failures, id, ttl_ms, now)
  redis.call('ZADD', failures, ms(now), id)
  redis.call('ZREMRANGEBYRANK', failures, 0, -FAILURES_KEPT - 1)
  redis.call('PEXPIRE', failures, ttl_ms)
end
