-- Put everything, or one tier, into maintenance: until a time, or (until_ms = 0) until it is told otherwise.
-- KEYS: maintenance
-- ARGV: field until_ms reason
-- include: record
-- Returns: {done, since} or {past, now}. One that goes on is changed and keeps its beginning; those that are over go.
local now = now_ms()
local function over(ends)
  return tonumber(ends) > 0 and tonumber(ends) <= now
end
if over(until_ms) then
  return {'past', ms(now)}
end
local since = ms(now)
local flat = redis.call('HGETALL', maintenance)
for i = 1, #flat, 2 do
  local ends, began = string.match(flat[i + 1], '^(%d+) (%d+)')
  if not ends or over(ends) then
    redis.call('HDEL', maintenance, flat[i])
  elseif flat[i] == field then
    since = began
  end
end
redis.call('HSET', maintenance, field, until_ms .. ' ' .. since .. ' ' .. reason)
return {'done', since}
