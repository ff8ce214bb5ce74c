-- The number of an owner's attempt: the one it counted, or the next that nobody else has. Where Redis lost a claim and its
-- start, their call is under way all the same, and the next claim counts the same number for its own. `by:N` says whose a
-- number is; a row without it was written by a worker of a version before that field, so it is another's.
local function own_number(job, owner, number)
  local own = tonumber(number)
  local held = redis.call('HMGET', job, 'by:' .. ms(own), 'a:' .. ms(own))
  while held[1] ~= owner and (held[1] or held[2]) do
    own = own + 1
    held = redis.call('HMGET', job, 'by:' .. ms(own), 'a:' .. ms(own))
  end
  return ms(own)
end

-- A row says its attempt's number before anything that may hold any text.
local function numbered(row, number)
  return (string.gsub(row, '"attempt":%d+', '"attempt":' .. number, 1))
end
