-- Take from one bucket of a model's gate, the whole cost or nothing; or fill it up again, where `fill` is not empty.
-- KEYS: gate bookings
-- ARGV: limit amount cost fill
-- include: record
-- include: gate
-- What the margin keeps clear and what bookings were promised is not to be had. `amount` is the limit as configured.
-- Returns: taken or short. Short changes nothing but that bookings nobody came for are dropped.
drop_late(gate, bookings, now_ms())
-- The other limits go on as they were counted, or what they refilled since then would be lost.
local figures = {}
for i, name in ipairs(NAMES) do
  figures[i] = name == limit and amount or redis.call('HGET', gate, 'k:' .. name) or '0'
end
local g = open_gate(gate, table.concat(figures, ' '), now_ms())
local cap = g.caps[limit]
if fill ~= '' then
  g.levels[limit] = cap
  save_gate(g)
  wake_next(g, bookings)
  return 'taken'
end
local booked = 0
for lane = 0, 2 do
  local function sum(what) return math.max(0, tonumber(g.has['b' .. lane .. ':' .. what] or 0)) end
  booked = booked + cost_of(limit, sum('n'), sum('p'), sum('o'))
end
local wanted = tonumber(cost)
if wanted > cap or g.levels[limit] < math.min(cap, wanted + g.margins[limit]) + booked then
  return 'short'
end
g.levels[limit] = g.levels[limit] - wanted
save_gate(g)
return 'taken'
