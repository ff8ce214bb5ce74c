-- Make a file of chunks that lie there already: only now is it seen. A repeated upload gives the first one's file.
-- KEYS: file files key again *chunks
-- ARGV: id hash use_key attach keep_ms again_ms list_ms filename purpose bytes lines tenant
-- include: record
-- include: made
-- Returns: {created|exists|conflict|lost, id}. `lost`: a chunk is gone. Repeating the call changes nothing.
if redis.call('EXISTS', file) == 1 then return {'created', id} end
local before = made_before(key, again, use_key, attach, id, hash)
if before then return before end
for k = MORE_KEYS, #KEYS do
  if redis.call('PEXPIRE', KEYS[k], keep_ms) == 0 then return {'lost', id} end
end
local now = now_ms()
redis.call('HSET', file, 'id', id, 'tenant', tenant, 'filename', filename, 'purpose', purpose, 'bytes', bytes,
  'lines', lines, 'created', ms(now), 'expires', ms(now + keep_ms), 'hash', hash)
redis.call('PEXPIRE', file, keep_ms)
note_in_list(files, id, now, list_ms)
note_made(key, again, use_key, id, hash, keep_ms, again_ms)
return {'created', id}
