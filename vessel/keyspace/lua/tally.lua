-- Add the ledger's new entries to sums that only grow, each entry once, whoever asks and however many do at once.
-- KEYS: ledger tally
-- ARGV: at_most most_fields
-- An entry that was amended after it was counted stays counted, under the outcome it had. Its model is counted as
-- `other` once there are too many fields.
-- Returns: {entries left, field, sum, field, sum, ...}; fields are `calls|model|outcome`, `tokens|model|kind`,
-- `nano|model|outcome` and `cached|model`. The last one counted is kept in the field `cursor`.
local function add(what, model, more, value)
  local field = what .. '|' .. model .. (more and '|' .. more or '')
  if value ~= 0 then redis.call('HINCRBY', tally, field, string.format('%.0f', value)) end
end
local cursor = redis.call('HGET', tally, 'cursor') or '0-0'
local found = redis.call('XRANGE', ledger, '(' .. cursor, '+', 'COUNT', at_most)
local full = redis.call('HLEN', tally) >= tonumber(most_fields)
for _, entry in ipairs(found) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local whole, row = pcall(cjson.decode, fields['row'] or '')
  if whole and type(row) == 'table' and type(row['tokens']) == 'table' then
    local model, tokens = string.gsub(tostring(row['model']), '|', '_'), row['tokens']
    if full and redis.call('HEXISTS', tally, 'calls|' .. model .. '|' .. fields['outcome']) == 0 then model = 'other' end
    add('calls', model, fields['outcome'], 1)
    add('tokens', model, 'input', tonumber(tokens['input']) or 0)
    add('tokens', model, 'output', tonumber(tokens['output']) or 0)
    add('tokens', model, 'cached', tonumber(tokens['cached']) or 0)
    add('nano', model, fields['outcome'], (tonumber(row['cost_usd']) or 0) * 1e9)
    add('cached', model, nil, (tonumber(tokens['cached']) or 0) > 0 and 1 or 0)
  end
  cursor = entry[1]
end
local left = 0
if #found > 0 then
  redis.call('HSET', tally, 'cursor', cursor)
end
if #found == tonumber(at_most) then
  left = #redis.call('XRANGE', ledger, '(' .. cursor, '+', 'COUNT', at_most)
end
local answer = redis.call('HGETALL', tally)
table.insert(answer, 1, left)
return answer
