-- Take or keep a role for a while: one process at a time plays it.
-- KEYS: role
-- ARGV: owner lease_ms
-- Returns: 1 when the caller holds the role, else 0.
local holder = redis.call('GET', role)
if holder and holder ~= owner then
  return 0
end
redis.call('SET', role, owner, 'PX', lease_ms)
return 1
