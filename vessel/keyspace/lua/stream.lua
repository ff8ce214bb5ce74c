-- Append what a call answers to its job's token stream, as it comes. The first pieces bind the job to this call: from
-- then on it is neither sent on nor rescued, and no other call's answer ends it.
-- KEYS: job tokens events
-- ARGV: generation owner from attempt batch most *fields
-- include: record
-- Returns: {written}, {cancel_requested} when it is written and the call is to be cut, or {superseded, state}. Repeating a
-- batch changes nothing.
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'cancel', 'streamed')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  return {'superseded', held[1] or ''}
end
-- What has come is written also when the job is to end: should its answer be whole by then, it is its result.
local answer = {held[4] == '1' and 'cancel_requested' or 'written', ''}
local last = redis.call('XREVRANGE', tokens, '+', '-', 'COUNT', 1)[1]
if last and tonumber(string.match(last[1], '%d+$')) >= tonumber(batch) then
  return answer
end
if not held[5] then
  redis.call('HSET', job, 'streamed', '1')
  emit(events, now_ms(), 'streaming', held[1], generation, attempt)
end
local fields = {}
for i = MORE_ARGS, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('XADD', tokens, 'MAXLEN', '~', most, attempt .. '-' .. batch, unpack(fields))
return answer
