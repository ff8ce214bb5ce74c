-- Take or keep the validation of a batch that nobody else validates, and write blocks of its index.
-- KEYS: batch index
-- ARGV: owner owned_ms status keep_ms *blocks
-- include: record
-- Returns: owned, or lost where another one validates it or it is not to be validated any more.
local held = redis.call('HMGET', batch, 'status', 'owner', 'owned_until')
local now = now_ms()
if held[1] ~= status or (held[2] and held[2] ~= owner and tonumber(held[3] or 0) > now) then return 'lost' end
if held[2] ~= owner then
  redis.call('DEL', index)
end
redis.call('HSET', batch, 'owner', owner, 'owned_until', ms(now + owned_ms))
local blocks = {}
for i = MORE_ARGS, #ARGV do blocks[#blocks + 1] = ARGV[i] end
if #blocks > 0 then
  redis.call('HSET', index, unpack(blocks))
  redis.call('PEXPIRE', index, keep_ms)
end
return 'owned'
