-- Extend the leases of one process' jobs and say which were cancelled or lost.
-- KEYS: leases *jobs
-- ARGV: lease_ms from *held
-- include: record
-- Returns: one word per job: ok, cancel or lost. `held` are triples id, generation, owner.
local now = now_ms()
local answers = {}
for k = MORE_KEYS, #KEYS do
  local at = MORE_ARGS + (k - MORE_KEYS) * 3
  local held = redis.call('HMGET', KEYS[k], 'state', 'gen', 'owner', 'cancel')
  if among(from, held[1]) and held[2] == ARGV[at + 1] and held[3] == ARGV[at + 2] then
    redis.call('HSET', KEYS[k], 'lease', ms(now + lease_ms))
    redis.call('ZADD', leases, ms(now + lease_ms), ARGV[at])
    answers[#answers + 1] = held[4] == '1' and 'cancel' or 'ok'
  else
    answers[#answers + 1] = 'lost'
  end
end
return answers
