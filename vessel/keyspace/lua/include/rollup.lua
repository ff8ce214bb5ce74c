-- Sums of the ledger, kept up in the step that writes an entry: by tenant, model, tier and vessel in `sums`, by tag in
-- `tag_sums`. A field is `hour|what|tenant|...`, a count or 10^-12 USD (pico); what begins with `u:` was booked for calls
-- whose answer was not seen. Sweeps move the hours that are over (roll.lua).
local HOUR_MS = 3600000
-- Tags may be different for each call; where an hour has too many, `over` says that its tags must be counted in the ledger.
local MOST_TAGS = 1000

local function part(value)
  return type(value) == 'string' and (string.gsub(value, '|', ' ')) or ''
end

local function amounts(row, told, label, guessed)
  local tokens, u = type(told.tokens) == 'table' and told.tokens or {}, guessed and 'u:' or ''
  local found = {['n:' .. label] = '1', estimated = told.estimated == true and '1' or '0'}
  for _, name in ipairs({'input', 'cached', 'output'}) do found[u .. name] = ms(tonumber(tokens[name]) or 0) end
  -- From the text, because a number here is exact to 15 digits only; a tag cannot look like it, since its value is quoted.
  found[u .. 'pico'] = pico(string.match(row, '"cost_usd":(%d+%.?%d*)') or '')
  found[u .. 'fees'] = pico(string.match(row, '"tool_cost_usd":(%d+%.?%d*)') or '')
  return found
end

local function add_amounts(sums, hour, of, found, sign)
  for what, amount in pairs(found) do
    if amount ~= '0' then redis.call('HINCRBY', sums, hour .. '|' .. what .. '|' .. of, sign .. amount) end
  end
end

local function add_tags(tag_sums, hour, told, found, label, sign)
  local tags = type(told.tags) == 'table' and next(told.tags) and told.tags or {['']=''}
  for name, value in pairs(tags) do
    local of = part(told.tenant) .. '|' .. name .. (name == '' and '' or '=' .. tostring(value))
    local size, is_new = hour .. '|size||', redis.call('HEXISTS', tag_sums, hour .. '|n:' .. label .. '|' .. of) == 0
    if is_new and tonumber(redis.call('HGET', tag_sums, size) or 0) >= MOST_TAGS then
      redis.call('HINCRBY', tag_sums, hour .. '|over|' .. part(told.tenant) .. '|', 1)
    else
      if is_new then redis.call('HINCRBY', tag_sums, size, 1) end
      add_amounts(tag_sums, hour, of, found, sign)
    end
  end
end

-- Add an entry to the sums of its hour (sign '') or take it out of them ('-'); `guessed`: its answer was not seen.
local function add_sums(sums, tag_sums, entry, label, row, sign, guessed)
  local is_json, told = pcall(cjson.decode, row)
  if not is_json or type(told) ~= 'table' then return end
  local hour = ms(math.floor(tonumber(string.match(entry, '^%d+')) / HOUR_MS))
  local found = amounts(row, told, label, guessed)
  local of = table.concat({part(told.tenant), part(told.model), part(told.tier), part(told.vessel)}, '|')
  add_amounts(sums, hour, of, found, sign)
  add_tags(tag_sums, hour, told, found, label, sign)
end
