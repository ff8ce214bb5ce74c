-- Count refusals in the hour under way, and forget hours that are over for a day.
-- KEYS: refusals
-- ARGV: most_fields *counts
-- include: record
-- `counts` are names and amounts in turn; a field is `hour|name`. Once there are too many fields, a new name is counted
-- as `other`. The field `hour` tells when old ones were last looked for.
-- Returns: the hour, counted from 1970.
local HOUR_MS, HOURS, KEPT_MS = 3600000, 24, 90000000
local OTHER = 'other|other|other'
local hour = math.floor(now_ms() / HOUR_MS)
if redis.call('HGET', refusals, 'hour') ~= ms(hour) then
  for _, field in ipairs(redis.call('HKEYS', refusals)) do
    local of = tonumber(string.match(field, '^(%d+)|'))
    if of and of <= hour - HOURS then redis.call('HDEL', refusals, field) end
  end
  redis.call('HSET', refusals, 'hour', ms(hour))
end
for i = MORE_ARGS, #ARGV, 2 do
  local field = ms(hour) .. '|' .. ARGV[i]
  if redis.call('HEXISTS', refusals, field) == 0 and redis.call('HLEN', refusals) >= tonumber(most_fields) then
    field = ms(hour) .. '|' .. OTHER
  end
  redis.call('HINCRBY', refusals, field, ARGV[i + 1])
end
redis.call('PEXPIRE', refusals, KEPT_MS)
return ms(hour)
