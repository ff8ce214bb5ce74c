-- Add the ledger's new entries to sums that only grow, each entry once, whoever asks and however many do at once.
-- KEYS: ledger tally
-- ARGV: at_most most_fields
-- An entry that was amended after it was counted stays counted, under the outcome it had. Its model is counted as
-- `other` once there are too many fields.
-- Returns: {next, field, sum, field, sum, ...}: when the first entry that is not added yet was written (epoch ms, 0:
-- there is none), and sums in the fields `calls|model|outcome`, `tokens|model|kind`, `nano|model|outcome` and
-- `cached|model`. The last entry added is kept in the field `cursor`.
local cursor = redis.call('HGET', tally, 'cursor') or '0-0'
local found = redis.call('XRANGE', ledger, '(' .. cursor, '+', 'COUNT', at_most)
local full = redis.call('HLEN', tally) >= tonumber(most_fields)
local sums, known = {}, {}
local function add(field, value)
  if value and value ~= 0 then sums[field] = (sums[field] or 0) + value end
end
local function named(model, outcome)
  local field = 'calls|' .. model .. '|' .. outcome
  if full and known[field] == nil then known[field] = redis.call('HEXISTS', tally, field) == 1 end
  return (not full or known[field]) and model or 'other'
end
for _, entry in ipairs(found) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local whole, row = pcall(cjson.decode, fields['row'] or '')
  if whole and type(row) == 'table' and type(row['tokens']) == 'table' then
    local tokens, outcome = row['tokens'], fields['outcome'] or 'unknown'
    local model = named((string.gsub(tostring(row['model']), '|', '_')), outcome)
    local cached = tonumber(tokens['cached']) or 0
    add('calls|' .. model .. '|' .. outcome, 1)
    add('tokens|' .. model .. '|input', tonumber(tokens['input']))
    add('tokens|' .. model .. '|output', tonumber(tokens['output']))
    add('tokens|' .. model .. '|cached', cached)
    add('nano|' .. model .. '|' .. outcome, (tonumber(row['cost_usd']) or 0) * 1e9)
    add('cached|' .. model, cached > 0 and 1 or 0)
  end
  cursor = entry[1]
end
for field, value in pairs(sums) do redis.call('HINCRBY', tally, field, string.format('%.0f', value)) end
local next_at = '0'
if #found > 0 then
  redis.call('HSET', tally, 'cursor', cursor)
  local more = redis.call('XRANGE', ledger, '(' .. cursor, '+', 'COUNT', 1)
  if more[1] then next_at = string.match(more[1][1], '^%d+') end
end
local answer = redis.call('HGETALL', tally)
table.insert(answer, 1, next_at)
return answer
