-- Say that somebody reads a job's answer as it comes; whoever is silent for long is taken for gone.
-- KEYS: job
-- ARGV: from
-- include: record
-- Returns: the job's state, empty when it is gone. One that has ended is left as it is.
local state = redis.call('HGET', job, 'state')
if among(from, state) then
  redis.call('HSET', job, 'read_at', ms(now_ms()))
end
return state or ''
