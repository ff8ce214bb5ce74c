-- Note how an attempt to deliver a webhook ended: that is its end (`to`), or it is due again after delay_ms.
-- KEYS: due webhook
-- ARGV: member lease to wins delay_ms row rows_kept
-- include: record
-- Returns: settled, superseded (its lease was over, and another process has it or has ended it) or missing.
-- What was delivered (wins = 1) counts out of a lost lease too. Repeating the call changes nothing.
local DAY_MS = 86400000
local mine = tonumber(redis.call('ZSCORE', due, member) or 0) == tonumber(lease)
if redis.call('EXISTS', webhook) == 0 then
  if mine then redis.call('ZREM', due, member) end
  return 'missing'
end
local ended = redis.call('HGET', webhook, 'status')
if not mine and (wins ~= '1' or ended == to) then return 'superseded' end
local now = now_ms()
local n = redis.call('HINCRBY', webhook, 'n', 1)
redis.call('HINCRBY', webhook, 'round', 1)
redis.call('HSET', webhook, 'a:' .. n, row)
redis.call('HDEL', webhook, 'a:' .. n - rows_kept)
if to ~= '' then
  redis.call('HSET', webhook, 'status', to, 'ended', ms(now))
  redis.call('HDEL', webhook, 'next')
  redis.call('ZREM', due, member)
  return 'settled'
end
local again = ms(now + delay_ms)
redis.call('HSET', webhook, 'next', again)
redis.call('ZADD', due, again, member)
if redis.call('PTTL', webhook) < delay_ms + DAY_MS then redis.call('PEXPIRE', webhook, ms(delay_ms + DAY_MS)) end
return 'settled'
