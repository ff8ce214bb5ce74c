-- Remember the jobs that a POST has made, so that an SDK's own repeat of it finds the first one.
-- KEYS: made
-- ARGV: verb id ttl_ms
-- include: record
-- Returns: for `attach` the id of the job to attach to, for `seen` the job's mark, else nothing; empty where there is none.
-- A member's score is when it was made or attached to last, below zero once its answer went out. Parallel twins of a
-- request are told apart as well as can be: a repeat takes the oldest job whose answer nobody got, each in turn.
local MOST = 64
local now = now_ms()
if verb == 'note' then
  redis.call('ZADD', made, ms(now), id)
  redis.call('ZREMRANGEBYRANK', made, 0, -MOST - 1)
  redis.call('PEXPIRE', made, ttl_ms)
elseif verb == 'delivered' then
  redis.call('ZADD', made, 'XX', ms(-now), id)
elseif verb == 'forget' then
  redis.call('ZREM', made, id)
elseif verb == 'seen' then
  return redis.call('ZSCORE', made, id) or ''
else
  local open = redis.call('ZRANGEBYSCORE', made, '(0', '+inf', 'LIMIT', 0, 1)
  if open[1] then
    redis.call('ZADD', made, ms(now), open[1])
    return open[1]
  end
  return redis.call('ZRANGEBYSCORE', made, '-inf', '(0', 'LIMIT', 0, 1)[1] or ''
end
return ''
