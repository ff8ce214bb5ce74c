-- Move the sums of a day's hours that are over from the hashes that calls add to into those of the day.
-- KEYS: sums tag_sums day_sums hour_sums day_tags log
-- ARGV: day keep_ms day_keep_ms
-- include: record
-- Returns: how many fields were moved. `rolls` in `log` tells readers who read one hash before and one after it.
local HOUR_MS = 3600000
local first = tonumber(day) * 24
local before = math.min(first + 24, math.floor(now_ms() / HOUR_MS))
local moved = 0

local function goes(field)
  local hour, rest = string.match(field, '^(%d+)|(.*)$')
  if hour and tonumber(hour) >= first and tonumber(hour) < before then return rest end
end

local flat = redis.call('HGETALL', sums)
for i = 1, #flat, 2 do
  local rest = goes(flat[i])
  if rest then
    redis.call('HINCRBY', hour_sums, flat[i], flat[i + 1])
    redis.call('HINCRBY', day_sums, rest, flat[i + 1])
    redis.call('HDEL', sums, flat[i])
    moved = moved + 1
  end
end
flat = redis.call('HGETALL', tag_sums)
for i = 1, #flat, 2 do
  if goes(flat[i]) then
    redis.call('HINCRBY', day_tags, flat[i], flat[i + 1])
    redis.call('HDEL', tag_sums, flat[i])
    moved = moved + 1
  end
end
redis.call('PEXPIRE', hour_sums, keep_ms)
redis.call('PEXPIRE', day_tags, keep_ms)
redis.call('PEXPIRE', day_sums, day_keep_ms)
if moved > 0 then redis.call('HINCRBY', log, 'rolls', 1) end
local known = tonumber(redis.call('HGET', log, 'first_day') or day)
redis.call('HSET', log, 'first_day', ms(math.min(known, tonumber(day))))
return moved
