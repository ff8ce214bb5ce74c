-- Continuous buckets: `level` is what is left of `capacity`, refilled by capacity/period (groq-facts 1.8, 2).
local function level_of(key, capacity, period, now)
  local stored = redis.call('HMGET', key, 'level', 'at')
  if not stored[1] then return capacity end
  local level = tonumber(stored[1]) + math.max(0, now - tonumber(stored[2])) * capacity / period
  return math.min(capacity, level)
end

-- A bucket that is forgotten counts as full, so a debt is kept until it would be paid.
local function set_level(key, level, capacity, period, now)
  redis.call('HSET', key, 'level', string.format('%.6f', level), 'at', ms(now))
  redis.call('PEXPIRE', key, ms(math.ceil(math.max(2 * period, (capacity - level) * period / capacity))))
end

-- Give `amount` back to each bucket (negative: charge more); `first` is the index of the first triple in ARGV.
local function settle(first_key, first, now)
  local i = first
  for k = first_key, #KEYS do
    local capacity, period, amount = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    if amount ~= 0 then
      local level = math.min(capacity, level_of(KEYS[k], capacity, period, now) + amount)
      set_level(KEYS[k], level, capacity, period, now)
    end
    i = i + 3
  end
end

-- A booking belongs to one lease: give it back once, whoever ends it, and never that of a later lease.
local function free_booking(job, generation, first_key, first, now)
  if redis.call('HGET', job, 'booked_in') == generation then
    settle(first_key, first, now)
    redis.call('HDEL', job, 'booking', 'booked_in', 'start_at')
  end
end
