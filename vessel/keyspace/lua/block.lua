-- Hold a model back for all workers of the organisation until a time; an earlier time never shortens a later one.
-- KEYS: gate
-- ARGV: wait_ms reason
-- include: record
-- Returns: the time until which it is held back.
local GATE_TTL_MS = 86400000
local now = now_ms()
local due = now + wait_ms
local held = tonumber(redis.call('HGET', gate, 'blocked_until') or 0)
if due > held then
  redis.call('HSET', gate, 'blocked_until', ms(due), 'reason', reason)
  redis.call('PEXPIRE', gate, ms(math.max(GATE_TTL_MS, due - now)))
  held = due
end
return ms(held)
