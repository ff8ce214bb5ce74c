-- Maintenance, and spend caps in nano-USD: by day and month for a tenant (`budget`) and for all (`whole`), and of a batch.
-- A cap's hash: `day_cap`, `month_cap`, and what is spent or reserved of the current ones: `day`, `day_nano`, ...; in which
-- day or month its warning was given (`day_warned`) and the cap first held a job (`day_full`).
-- A `purse` holds the keys budget, whole, batch, batch_calls (the batch's calls under way) and spend_events.
local DAY_MS = 86400000
local WARNED_AT = 0.8
local SPEND_EVENTS_KEPT = 1000

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

local function next_month_ms(day)
  local first = day + 1
  while month_of(first) == month_of(day) do first = first + 1 end
  return first * DAY_MS
end

-- Tell once in a day or month (`period`) that a cap is nearly (`warned`) or wholly used (`full`).
local function tell_spend(key, spend_events, what, name, period, spent, cap, now)
  local field = name .. '_' .. what
  if redis.call('HGET', key, field) == ms(period) then return end
  redis.call('HSET', key, field, ms(period), field .. '_at', ms(now))
  redis.call('HINCRBY', key, 'told:' .. what, 1)
  redis.call('XADD', spend_events, 'MAXLEN', '~', SPEND_EVENTS_KEPT, '*', 'event', what, 'cap', name, 'tenant',
    redis.call('HGET', key, 'tenant') or '', 'batch', name == 'batch' and redis.call('HGET', key, 'id') or '',
    'spent_nano', ms(spent), 'cap_nano', ms(cap), 'at', ms(now))
end

-- What a worst case does to one tenant's caps, or to those of all: nil, or {'never', cap's name, cap}, or
-- {'over', cap's name, how long it stays so at most} with what `note_short` takes: the cap's hash (`key`), its `part`, the
-- day or month, what is `used`, and the `cap`.
local function over_caps(key, who, nano, now)
  local spent = spent_in(key, now)
  if not spent then return nil end
  for _, name in ipairs({'month', 'day'}) do
    local cap = spent[name .. '_cap']
    if cap and nano > cap then return {'never', who .. ' ' .. name, ms(cap)} end
  end
  for _, name in ipairs({'month', 'day'}) do
    local cap, used = spent[name .. '_cap'], spent[name .. '_nano']
    if cap and used + nano > cap then
      local wait = name == 'day' and DAY_MS - now % DAY_MS or next_month_ms(spent.day) - now
      return {'over', who .. ' ' .. name, wait, key = key, part = name, period = spent[name], used = used, cap = cap}
    end
  end
  return nil
end

-- The same of a batch's cap, which never begins anew: what its calls under way have reserved may come back, nothing else.
local BATCH_LOOK_MS = 1000

local function over_batch(batch, batch_calls, nano, now)
  local held = redis.call('HMGET', batch, 'cap_nano', 'spent_nano')
  if not held[1] or tonumber(held[2] or 0) + nano <= tonumber(held[1]) then return nil end
  redis.call('ZREMRANGEBYSCORE', batch_calls, '-inf', ms(now))
  local idle = redis.call('ZCARD', batch_calls) == 0
  return {idle and 'never' or 'over', 'batch', idle and held[1] or BATCH_LOOK_MS, key = batch, part = 'batch', period = 0,
    used = tonumber(held[2] or 0), cap = tonumber(held[1])}
end

-- Returns what the first cap that a worst case would pass says: `never`, as it could not fit it even unused, before `over`.
local function over_budget(purse, nano, now)
  local found = {
    over_batch(purse.batch, purse.batch_calls, nano, now) or {'', '', 0},
    over_caps(purse.budget, 'tenant', nano, now) or {'', '', 0},
    over_caps(purse.whole, 'whole', nano, now) or {'', '', 0},
  }
  for _, wanted in ipairs({'never', 'over'}) do
    for _, answer in ipairs(found) do
      if answer[1] == wanted then return answer end
    end
  end
  return nil
end

-- Note that a cap, and nothing else, holds a job or refuses it for good: what `over_budget` returned.
local function note_short(purse, short, now)
  if not short.key then return end
  tell_spend(short.key, purse.spend_events, 'full', short.part, short.period, short.used, short.cap, now)
  if short.part ~= 'batch' then redis.call('HINCRBY', short.key, 'held', 1) end
end

local function warn_of(key, spend_events, spent, now)
  for _, name in ipairs({'day', 'month'}) do
    local cap = spent[name .. '_cap']
    if cap and spent[name .. '_nano'] >= WARNED_AT * cap then
      tell_spend(key, spend_events, 'warned', name, spent[name], spent[name .. '_nano'], cap, now)
    end
  end
end

-- Spend; negative: give back what was reserved and not spent, as far as its day and month are not over and its cap was
-- set by then.
local function spend_of(key, spend_events, nano, at, now)
  local spent = spent_in(key, now)
  if not spent or at < tonumber(redis.call('HGET', key, 'since') or 0) then return end
  local day = math.floor(at / DAY_MS)
  if day == spent.day then spent.day_nano = math.max(0, spent.day_nano + nano) end
  if month_of(day) == spent.month then spent.month_nano = math.max(0, spent.month_nano + nano) end
  redis.call('HSET', key, 'day', spent.day, 'day_nano', ms(spent.day_nano), 'month', spent.month,
    'month_nano', ms(spent.month_nano))
  warn_of(key, spend_events, spent, now)
end

local function spend_of_batch(batch, spend_events, nano, now)
  local cap = tonumber(redis.call('HGET', batch, 'cap_nano') or 0)
  if cap == 0 then return end
  local spent = redis.call('HINCRBY', batch, 'spent_nano', ms(nano))
  if spent >= WARNED_AT * cap then tell_spend(batch, spend_events, 'warned', 'batch', 0, spent, cap, now) end
end

-- `at` is when it was reserved.
local function spend(purse, nano, at, now)
  spend_of(purse.budget, purse.spend_events, nano, at, now)
  spend_of(purse.whole, purse.spend_events, nano, at, now)
  spend_of_batch(purse.batch, purse.spend_events, nano, now)
end
