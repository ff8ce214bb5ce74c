-- Delete a file and its bytes, unless a batch came to read it since its readers were looked at.
-- KEYS: file files readers *chunks
-- ARGV: id readers_seen
-- Returns: deleted, missing or in_use.
if redis.call('EXISTS', file) == 0 then return 'missing' end
if redis.call('SCARD', readers) ~= tonumber(readers_seen) then return 'in_use' end
redis.call('DEL', file)
for k = MORE_KEYS, #KEYS do redis.call('DEL', KEYS[k]) end
redis.call('ZREM', files, id)
return 'deleted'
