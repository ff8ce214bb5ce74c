-- Say what sweeps should look at: parked jobs that are due, leases that are over, deadlines that passed.
-- After a gap in the sweeps (Redis or everybody was away) no lease counts as over for one lease length: whoever still
-- works must be able to renew first. Nobody knowing when the last sweep was is such a gap.
-- KEYS: leases parked deadlines sweep
-- ARGV: limit lease_ms gap_ms
-- include: record
-- Returns: {parked ids, leased ids, deadline ids, now}
local SWEEP_TTL_MS = 86400000
local now = now_ms()
local seen = redis.call('HMGET', sweep, 'last', 'not_before')
if not seen[1] or now - seen[1] > tonumber(gap_ms) then
  seen[2] = ms(now + lease_ms)
  redis.call('HSET', sweep, 'not_before', seen[2])
end
redis.call('HSET', sweep, 'last', ms(now))
redis.call('PEXPIRE', sweep, SWEEP_TTL_MS)
local over = {}
if tonumber(seen[2] or 0) <= now then
  over = redis.call('ZRANGE', leases, '-inf', ms(now), 'BYSCORE', 'LIMIT', 0, limit)
end
return {
  redis.call('ZRANGE', parked, '-inf', ms(now), 'BYSCORE', 'LIMIT', 0, limit),
  over,
  redis.call('ZRANGE', deadlines, '-inf', ms(now), 'BYSCORE', 'LIMIT', 0, limit),
  ms(now),
}
