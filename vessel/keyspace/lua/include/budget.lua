-- Maintenance, and spend caps by day and month, for a tenant (`budget`) and for all (`whole`), in nano-USD.
-- A cap's hash: `day_cap`, `month_cap`, and what is spent or reserved of the current ones: `day`, `day_nano`, ...
local DAY_MS = 86400000

-- Returns how long (0: until it is lifted), and why, when the whole vessel or this tier is in maintenance.
local function maintenance_of(maintenance, tier, now)
  local found = redis.call('HMGET', maintenance, 'all', 'tier:' .. tier)
  for i = 1, 2 do
    if found[i] then
      local ends, reason = string.match(found[i], '^(%d+) %d+ ?(.*)$')
      if ends == '0' then return 0, reason end
      if tonumber(ends) > now then return tonumber(ends) - now, reason end
    end
  end
  return nil
end

-- The civil month of a day number since 1970 (Howard Hinnant's algorithm), as year * 12 + month.
local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return year * 12 + month
end

local function spent_in(key, now)
  local h = redis.call('HMGET', key, 'day_cap', 'month_cap', 'day', 'day_nano', 'month', 'month_nano')
  if not h[1] and not h[2] then return nil end
  local day = math.floor(now / DAY_MS)
  local month = month_of(day)
  return {
    day = day, month = month, day_cap = h[1] and tonumber(h[1]), month_cap = h[2] and tonumber(h[2]),
    day_nano = tonumber(h[3] or -1) == day and tonumber(h[4] or 0) or 0,
    month_nano = tonumber(h[5] or -1) == month and tonumber(h[6] or 0) or 0,
  }
end

-- Returns the name of the cap that the worst case would pass, and how long it stays so at most.
local function over_budget(budget, whole, nano, now)
  for who, key in pairs({tenant = budget, whole = whole}) do
    local spent = spent_in(key, now)
    if spent and spent.month_cap and spent.month_nano + nano > spent.month_cap then
      return who .. ' month', 31 * DAY_MS
    end
    if spent and spent.day_cap and spent.day_nano + nano > spent.day_cap then
      return who .. ' day', DAY_MS - now % DAY_MS
    end
  end
  return nil
end

-- Spend; negative: give back what was reserved and not spent, as far as its day and month are not over and its cap was
-- set by then.
local function spend_of(key, nano, at, now)
  local spent = spent_in(key, now)
  if not spent or at < tonumber(redis.call('HGET', key, 'since') or 0) then return end
  local day = math.floor(at / DAY_MS)
  if day == spent.day then spent.day_nano = math.max(0, spent.day_nano + nano) end
  if month_of(day) == spent.month then spent.month_nano = math.max(0, spent.month_nano + nano) end
  redis.call('HSET', key, 'day', spent.day, 'day_nano', ms(spent.day_nano), 'month', spent.month,
    'month_nano', ms(spent.month_nano))
end

-- `at` is when it was reserved.
local function spend(budget, whole, nano, at, now)
  spend_of(budget, nano, at, now)
  spend_of(whole, nano, at, now)
end
