-- Make a batch, in one step with the key that a repeated request finds it by. It is to be validated, or, where its lines
-- were checked before (total > 0) and their index lies there, goes at once.
-- KEYS: batch batches open_batches key again file readers index output errors files *chunks
-- ARGV: id hash use_key attach keep_ms again_ms list_ms window_ms status started ends_as total groups owner owned_ms
-- ARGV: file_id tenant output_id errors_id *fields
-- include: record
-- include: made
-- Returns: {created|exists|conflict|missing|lost, id}: missing is the file, lost the index. Repeating it changes nothing.
-- `fields` are field and value of the batch's record; `groups` the numbers of their lines, separated by spaces.
local DAY_MS = 86400000
if redis.call('EXISTS', batch) == 1 then return {'created', id} end
local before = made_before(key, again, use_key, attach, id, hash)
if before then return before end
if redis.call('HGET', file, 'tenant') ~= tenant then return {'missing', file_id} end
if tonumber(total) > 0 and redis.call('EXISTS', index) == 0 then return {'lost', id} end
local now = now_ms()
local expires = now + window_ms
local fields = {}
for i = MORE_ARGS, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', batch, 'id', id, 'tenant', tenant, 'file', file_id, 'status', status, 'created', ms(now),
  'updated', ms(now), 'expires', ms(expires), 'total', total, 'left', total, 'groups', 0, unpack(fields))
if status == started then
  local count = 0
  for lines in string.gmatch(groups, '%d+') do
    redis.call('HSET', batch, 't:' .. count, lines, 'next:' .. count, 0)
    count = count + 1
  end
  redis.call('HSET', batch, 'groups', count, 'ends_as', ends_as, 'at:' .. started, ms(now))
elseif owner ~= '' then
  redis.call('HSET', batch, 'owner', owner, 'owned_until', ms(now + owned_ms))
end
redis.call('ZADD', open_batches, ms(expires), id)
note_in_list(batches, id, now, list_ms)
redis.call('PEXPIRE', batch, keep_ms)
redis.call('PEXPIRE', index, keep_ms)
-- Its file must not go before it: a batch may be made of a file's last day.
if redis.call('PTTL', file) < window_ms + DAY_MS then
  redis.call('PEXPIRE', file, ms(window_ms + DAY_MS))
  redis.call('HSET', file, 'expires', ms(expires + DAY_MS))
  for k = MORE_KEYS, #KEYS do redis.call('PEXPIRE', KEYS[k], ms(window_ms + DAY_MS)) end
end
redis.call('SADD', readers, id)
redis.call('PEXPIRE', readers, ms(window_ms + DAY_MS))
local of = {id = id, tenant = tenant}
make_document(output, output_id, 'output', of, now, keep_ms)
make_document(errors, errors_id, 'error', of, now, keep_ms)
note_in_list(files, output_id, now, list_ms)
note_in_list(files, errors_id, now, list_ms)
note_made(key, again, use_key, id, hash, keep_ms, again_ms)
return {'created', id}
