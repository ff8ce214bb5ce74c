-- Note how many bytes a document of a batch has so far; it only grows, and only while its batch is kept.
-- KEYS: batch
-- ARGV: field told
-- Returns: noted or missing.
if redis.call('EXISTS', batch) == 0 then return 'missing' end
redis.call('HSET', batch, field, told)
return 'noted'
