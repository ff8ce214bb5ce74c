-- One hash per organisation and model, `gate`: what is left of every limit (`l:tpm`), when that was (`at`), limits and
-- margins learned (`c:tpm`, `m:tpm`), bookings (`b0:n` ...), and what holds calls back. Limits are continuous buckets:
-- capacity = limit, refilled by capacity/period (groq-facts 1.8, 2). A call's charge is three figures: one request, its
-- prompt tokens, its output tokens. Levels hold started calls only, so bookings can be moved without a correction.
local NAMES = {'rpm', 'rpd', 'tpm', 'tpd', 'itpm', 'otpm'}
local PERIOD = {rpm = 60000, rpd = 86400000, tpm = 60000, tpd = 86400000, itpm = 60000, otpm = 60000}
local GATE_TTL_MS = 172800000
local MARGIN_HALVES_MS = 30000
local LARGEST_MARGIN = 0.05
local LATE_MS = 2000

local function cost_of(name, n, p, o)
  if name == 'rpm' or name == 'rpd' then return n end
  if name == 'itpm' then return p end
  if name == 'otpm' then return o end
  return p + o
end

-- Read the gate as it is now. `configured` are six figures as text, 0 where no limit is set; what was learned wins.
local function open_gate(gate, configured, now)
  local flat = redis.call('HGETALL', gate)
  local g = {key = gate, now = now, caps = {}, levels = {}, margins = {}, has = {}}
  for i = 1, #flat, 2 do g.has[flat[i]] = flat[i + 1] end
  local at = tonumber(g.has.at or now)
  local passed = math.max(0, now - at)
  local fades = passed > 0 and 0.5 ^ (passed / MARGIN_HALVES_MS) or 1
  local i = 0
  for given in string.gmatch(configured, '%d+') do
    i = i + 1
    local name = NAMES[i]
    local cap = tonumber(g.has['c:' .. name] or given)
    if cap > 0 then
      g.caps[name] = cap
      -- The level is kept with the capacity it was counted under: when that changes, what is used stays used.
      local was = tonumber(g.has['k:' .. name] or cap)
      local level = tonumber(g.has['l:' .. name] or was) + cap - was
      g.levels[name] = math.min(cap, level + passed * cap / PERIOD[name])
      g.margins[name] = tonumber(g.has['m:' .. name] or 0) * fades
    end
  end
  return g
end

-- The lowest level of tokens a minute in this quarter of a second and the one before: what answers that are on their way
-- may have seen, between the charges of a burst and their settlement.
local LOW_MS = 250

local function lows(g)
  local slot, known = math.floor(g.now / LOW_MS), tonumber(g.has.low_slot or -2)
  local level = g.levels.tpm
  if slot == known then return slot, math.min(level, tonumber(g.has.low)), tonumber(g.has.low_before) end
  return slot, level, slot == known + 1 and tonumber(g.has.low) or level
end

-- A learned limit that holds calls back and was not confirmed for long is doubted: one call goes, to see. Nothing else
-- would ever tell that a plan was raised: no header names requests a minute, and a used-up day is not asked about.
local DOUBTED_AFTER_MS = 600000

local function doubted(g, name)
  local at = tonumber(g.has['t:' .. name])
  return g.has['c:' .. name] and at and g.now - at >= DOUBTED_AFTER_MS
end

local function save_gate(g, more)
  local fields = more or {}
  fields[#fields + 1], fields[#fields + 2] = 'at', ms(math.max(g.now, tonumber(g.has.at or 0)))
  for name, level in pairs(g.levels) do
    fields[#fields + 1], fields[#fields + 2] = 'l:' .. name, string.format('%.6f', level)
    fields[#fields + 1], fields[#fields + 2] = 'k:' .. name, ms(g.caps[name])
    if g.margins[name] > 0 or g.has['m:' .. name] then
      fields[#fields + 1], fields[#fields + 2] = 'm:' .. name, string.format('%.3f', g.margins[name])
    end
  end
  if g.levels.tpm then
    local slot, low, before = lows(g)
    for _, entry in ipairs({{'low_slot', ms(slot)}, {'low', low}, {'low_before', before}}) do
      fields[#fields + 1], fields[#fields + 2] = entry[1], entry[2]
    end
  end
  redis.call('HSET', g.key, unpack(fields))
  redis.call('PEXPIRE', g.key, GATE_TTL_MS)
end

-- Take n requests, p prompt and o output tokens from every bucket; negative figures give back, never above the limit.
local function take(g, n, p, o)
  for name, level in pairs(g.levels) do
    g.levels[name] = math.min(g.caps[name], level - cost_of(name, n, p, o))
  end
end

-- --- bookings: `lane|prompt|output|job|generation|channel` by start time, and their sums by lane in the gate ---------

local function split_booking(member)
  local lane, p, o, job, generation, channel = string.match(member, '^(%d)|(%d+)|(%d+)|([^|]+)|(%d+)|(.*)$')
  return {lane = lane, p = tonumber(p), o = tonumber(o), job = job, generation = generation, channel = channel}
end

local function drop_booking(gate, bookings, member)
  if redis.call('ZREM', bookings, member) == 0 then return false end
  local held = split_booking(member)
  local sums = {'b' .. held.lane .. ':n', 'b' .. held.lane .. ':p', 'b' .. held.lane .. ':o'}
  if redis.call('EXISTS', bookings) == 0 then
    redis.call('HDEL', gate, 'b0:n', 'b0:p', 'b0:o', 'b1:n', 'b1:p', 'b1:o', 'b2:n', 'b2:p', 'b2:o')
  elseif redis.call('EXISTS', gate) == 1 then
    redis.call('HINCRBY', gate, sums[1], -1)
    redis.call('HINCRBY', gate, sums[2], ms(-held.p))
    redis.call('HINCRBY', gate, sums[3], ms(-held.o))
  end
  return true
end

-- A booking belongs to one lease: give it back once, whoever ends it, and never that of a later lease.
local function free_booking(job, generation, gate, bookings)
  local held = redis.call('HMGET', job, 'booked_in', 'booking')
  if held[1] == generation then
    redis.call('HDEL', job, 'booking', 'booked_in', 'start_at', 'at_model')
    drop_booking(gate, bookings, held[2])
  end
end

-- Bookings whose process did not come to start them, as after a kill: they must not hold others back.
local function drop_late(gate, bookings, now)
  for _, member in ipairs(redis.call('ZRANGE', bookings, '-inf', ms(now - LATE_MS), 'BYSCORE', 'LIMIT', 0, 8)) do
    drop_booking(gate, bookings, member)
  end
end

-- Wake the process of the earliest booking when there is room for it before its time.
local function wake_next(g, bookings)
  local head = redis.call('ZRANGE', bookings, 0, 0, 'WITHSCORES')
  if not head[1] or tonumber(head[2]) <= g.now + 2 then return end
  local held = split_booking(head[1])
  for name, level in pairs(g.levels) do
    if level < cost_of(name, 1, held.p, held.o) + g.margins[name] then return end
  end
  if held.channel ~= '' then redis.call('PUBLISH', held.channel, held.job) end
end

-- Settle a call: what it charged and did not use comes back (negative: more was used), its lease on the concurrency
-- ends, and who waits is woken.
local function settle(gate, bookings, inflight, configured, call, n, p, o, now)
  redis.call('ZREM', inflight, call)
  local g = open_gate(gate, configured, now)
  if tonumber(n) ~= 0 or tonumber(p) ~= 0 or tonumber(o) ~= 0 then
    take(g, -n, -p, -o)
    save_gate(g)
  end
  wake_next(g, bookings)
end
