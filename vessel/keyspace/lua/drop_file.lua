-- Delete a file and its bytes, unless a batch came to read it since its readers were looked at.
-- KEYS: file files gone readers *chunks
-- ARGV: id readers_seen
-- Returns: deleted, missing or in_use.
-- For an hour a page may still go on behind it: whoever walks a listing may delete what is listed.
local GONE_MS, MOST_GONE = 3600000, 10000
if redis.call('EXISTS', file) == 0 then return 'missing' end
if redis.call('SCARD', readers) ~= tonumber(readers_seen) then return 'in_use' end
redis.call('DEL', file)
for k = MORE_KEYS, #KEYS do redis.call('DEL', KEYS[k]) end
local at = redis.call('ZSCORE', files, id)
if at then
  redis.call('ZREM', files, id)
  redis.call('ZADD', gone, at, id)
  redis.call('ZREMRANGEBYRANK', gone, 0, -MOST_GONE - 1)
  redis.call('PEXPIRE', gone, GONE_MS)
end
return 'deleted'
