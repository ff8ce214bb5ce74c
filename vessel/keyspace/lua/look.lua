-- Look at a model's gate without changing it.
-- KEYS: gate bookings inflight fed provider maintenance
-- ARGV: configured
-- include: record
-- include: gate
-- include: breaker
-- Returns: one JSON object; levels are as of now.
local FED_LATE_MS = 3000
local now = now_ms()
local g = open_gate(gate, configured, now)
local all = read_breaker(provider)
local limits = {}
for name, cap in pairs(g.caps) do
  limits[name] = {cap = cap, level = g.levels[name], margin = g.margins[name], learned = g.has['c:' .. name] ~= nil,
    doubted = doubted(g, name) or false, drift = tonumber(g.has['drift:' .. name] or 0)}
end
local function breaker_of(h)
  local wait, why = held_by_breaker(h, now)
  return {state = h.br or 'closed', why = h.br_why or why or '', wait_ms = wait or 0, since = tonumber(h.br_at or 0)}
end
local booked, since = {}, {}
for lane = 0, 2 do
  local name = tostring(lane)
  booked[name] = {}
  for i, what in ipairs({'n', 'p', 'o'}) do
    booked[name][i] = math.max(0, tonumber(g.has['b' .. lane .. ':' .. what] or 0))
  end
  since[name] = tonumber(g.has['since:' .. lane] or 0)
end
local held = {}
local flat = redis.call('HGETALL', maintenance)
for i = 1, #flat, 2 do held[flat[i]] = flat[i + 1] end
local first = redis.call('ZRANGE', bookings, 0, 0, 'WITHSCORES')
return cjson.encode({
  now = now, limits = limits, model = breaker_of(g.has), provider = breaker_of(all), booked = booked, since = since,
  blocked_ms = math.max(0, tonumber(g.has.blocked_until or 0) - now), blocked_why = g.has.blocked_why or '',
  in_flight = redis.call('ZCOUNT', inflight, ms(now), '+inf'), bookings = redis.call('ZCARD', bookings),
  next_booking = tonumber(first[2] or 0), fed = redis.call('ZCOUNT', fed, ms(now - FED_LATE_MS), '+inf'),
  interactive = {tonumber(g.has.hi_at or 0), tonumber(g.has.hi_p or 0), tonumber(g.has.hi_o or 0)},
  maintenance = held, seen = g.has.seen ~= nil or next(g.caps) ~= nil,
})
