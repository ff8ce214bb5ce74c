-- Count an answer by its length in a model's history, and halve what is remembered of its kind when that has grown large.
-- KEYS: output
-- ARGV: kind bucket last_bucket halved_at forgotten_below ttl_ms
-- `output` is a hash: `KIND|BUCKET` counts answers, `KIND|n` those since the last halving and what it left.
-- Returns: the count of the kind. Repeating it counts twice.
local total = kind .. '|n'
local count = tonumber(redis.call('HINCRBYFLOAT', output, total, 1))
redis.call('HINCRBYFLOAT', output, kind .. '|' .. bucket, 1)
if count >= tonumber(halved_at) then
  count = 0
  for b = 0, tonumber(last_bucket) do
    local field = kind .. '|' .. b
    local half = tonumber(redis.call('HGET', output, field) or 0) / 2
    if half < tonumber(forgotten_below) then
      redis.call('HDEL', output, field)
    else
      redis.call('HSET', output, field, string.format('%.3f', half))
      count = count + half
    end
  end
  redis.call('HSET', output, total, string.format('%.3f', count))
end
redis.call('PEXPIRE', output, ttl_ms)
return string.format('%.3f', count)
