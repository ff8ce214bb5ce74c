-- Take or keep a role for a while: one process at a time plays it. Whoever holds it gives it back with a lease of 0.
-- KEYS: role
-- ARGV: owner lease_ms
-- Returns: 1 when the caller holds the role, else 0.
local holder = redis.call('GET', role)
if holder and holder ~= owner then
  return 0
end
if tonumber(lease_ms) == 0 then
  redis.call('DEL', role)
  return 0
end
redis.call('SET', role, owner, 'PX', lease_ms)
return 1
