-- Hold a model back for all workers of the organisation until a time; an earlier time never shortens a later one.
-- KEYS: gate
-- ARGV: wait_ms reason
-- include: record
-- Returns: the time until which it is held back.
local now = now_ms()
local due = now + wait_ms
local held = tonumber(redis.call('HGET', gate, 'blocked_until') or 0)
if due > held then
  redis.call('HSET', gate, 'blocked_until', ms(due), 'reason', reason)
  redis.call('PEXPIRE', gate, 86400000)
  held = due
end
return ms(held)
