-- Admit, charge and write the attempt row: the last step before the bytes leave. All limits or none are charged, and
-- maintenance, breakers, concurrency and budgets are looked at in the same step; a refusal changes no bucket.
-- A wait of at most book_ms is booked: the job sleeps until the time returned, or until it is woken, and asks again.
-- KEYS: job events gate bookings inflight fed provider maintenance budget whole batch batch_calls spend_events
-- ARGV: id generation owner attempt row unknown_row from model tier lane prompt output book_ms
-- ARGV: configured concurrency call_ms worst_nano channel
-- include: record
-- include: owner
-- include: gate
-- include: breaker
-- include: budget
-- Returns: {started, probe or nothing, tpm level, drift} {booked, wait_ms} {wait, wait_ms, which} {held, wait_ms, kind, why}
-- {too_large, which, limit} {too_dear, cap, nano-USD} {cancel_requested} {superseded}. `which` is a limit, retry-after, concurrency or ramp.
-- `kind`: maintenance (wait_ms 0: until it is lifted), provider, model or budget. Repeating it changes nothing but a booking's time.
local AGED_MS = {['0'] = 0, ['1'] = 2000, ['2'] = 5000}
local ACTIVE_MS, RESERVED_PART, RESERVED_CALLS = 10000, 0.1, 2
local UNLEARNED_CALLS, TIMER_MS = 4, 1
local now = now_ms()
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'cancel', 'booked_in', 'booking', 'n')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  free_booking(job, generation, gate, bookings)
  return {'superseded', held[1] or ''}
end
redis.call('ZREM', fed, id)
local number = own_number(job, owner, attempt)
if redis.call('HEXISTS', job, 'a:' .. number) == 1 then
  return {'started', '', '', ''}
end
if held[4] == '1' then
  return {'cancel_requested'}
end

local function refuse(...)
  if held[5] == generation then free_booking(job, generation, gate, bookings) end
  return {...}
end

local purse = {budget = budget, whole = whole, batch = batch, batch_calls = batch_calls, spend_events = spend_events}
local short = over_budget(purse, tonumber(worst_nano), now)
if short and short[1] == 'never' then
  note_short(purse, short, now)
  return refuse('too_dear', short[2], short[3])
end
local wait, why = maintenance_of(maintenance, tier, now)
if wait then return refuse('held', ms(wait), 'maintenance', why) end
local all = read_breaker(provider)
wait, why = held_by_breaker(all, now)
if wait then
  if why == 'ramp' then return refuse('wait', ms(wait), 'ramp') end
  return refuse('held', ms(wait), 'provider', why)
end
drop_late(gate, bookings, now)
local g = open_gate(gate, configured, now)
wait, why = held_by_breaker(g.has, now)
if wait then
  if why == 'ramp' then return refuse('wait', ms(wait), 'ramp') end
  return refuse('held', ms(wait), 'model', why)
end
local blocked = tonumber(g.has.blocked_until or 0)
if blocked > now then
  return refuse('wait', ms(blocked - now), 'retry-after')
end
redis.call('ZREMRANGEBYSCORE', inflight, '-inf', ms(now))
local running = redis.call('ZCARD', inflight)
local most = tonumber(concurrency)
if next(g.caps) == nil and not g.has.seen then
  most = UNLEARNED_CALLS
end
if most > 0 and running >= most then
  return refuse('wait', ms(250), 'concurrency')
end
if short then
  note_short(purse, short, now)
  return refuse('held', ms(short[3]), 'budget', short[2])
end

-- What must stay in each bucket for those that go first: bookings of higher lanes and, for one that has none yet, of its
-- own lane; while interactive work comes in, also a reserve for it. A lane that has waited long goes as if it were first.
local p, o = tonumber(prompt), tonumber(output)
local mine = held[5] == generation
local since = tonumber(g.has['since:' .. lane] or now)
local aged = lane ~= '0' and now - since >= AGED_MS[lane]
local ahead = {n = 0, p = 0, o = 0}
for other = 0, tonumber(lane) do
  if not aged and (other < tonumber(lane) or not mine) then
    for _, what in ipairs({'n', 'p', 'o'}) do
      ahead[what] = ahead[what] + math.max(0, tonumber(g.has['b' .. other .. ':' .. what] or 0))
    end
  end
end
local reserve = {n = 0, p = 0, o = 0}
if lane ~= '0' and not aged and now - tonumber(g.has.hi_at or -ACTIVE_MS) < ACTIVE_MS then
  reserve = {n = RESERVED_CALLS, p = RESERVED_CALLS * g.has.hi_p, o = RESERVED_CALLS * g.has.hi_o}
end
local which
local doubts = {}
wait = 0
for _, name in ipairs(NAMES) do
  local cap = g.caps[name]
  if cap then
    local cost = cost_of(name, 1, p, o)
    if cost > cap then
      return refuse('too_large', name, ms(cap))
    end
    local kept = math.min(cap * RESERVED_PART, cost_of(name, reserve.n, reserve.p, reserve.o)) + g.margins[name]
    local needed = math.min(cap, cost + kept) + cost_of(name, ahead.n, ahead.p, ahead.o)
    -- Less than a nanosecond is rounding: who has waited as long as it was told goes.
    local missing = math.ceil((needed - g.levels[name]) * PERIOD[name] / cap - 1e-6)
    if missing > 0 and doubted(g, name) then
      doubts[#doubts + 1] = name
    elseif missing > wait then
      wait, which = missing, name
    end
  end
end
local marks = {}
local function mark(name, value) marks[#marks + 1], marks[#marks + 2] = name, value end
if lane == '0' then
  mark('hi_at', ms(now))
  mark('hi_p', ms(math.max(p, tonumber(g.has.hi_p or 0) * 0.9)))
  mark('hi_o', ms(math.max(o, tonumber(g.has.hi_o or 0) * 0.9)))
end
if wait > 0 and not g.has['since:' .. lane] then
  mark('since:' .. lane, ms(now))
end
if wait > tonumber(book_ms) then
  if #marks > 0 then
    redis.call('HSET', gate, unpack(marks))
    redis.call('PEXPIRE', gate, GATE_TTL_MS)
  end
  return refuse('wait', ms(wait), which)
end
if wait > 0 then
  if mine then
    redis.call('ZADD', bookings, 'XX', ms(now + wait), held[6])
  else
    local member = table.concat({lane, prompt, output, id, generation, channel}, '|')
    redis.call('ZADD', bookings, ms(now + wait), member)
    redis.call('PEXPIRE', bookings, GATE_TTL_MS)
    for _, sum in ipairs({{'n', 1}, {'p', prompt}, {'o', output}}) do
      redis.call('HINCRBY', gate, 'b' .. lane .. ':' .. sum[1], sum[2])
    end
    redis.call('HSET', job, 'booking', member, 'booked_in', generation, 'at_model', model)
    emit(events, now, 'booked', held[1], generation, ms(wait))
  end
  if #marks > 0 then redis.call('HSET', gate, unpack(marks)) end
  redis.call('PEXPIRE', gate, GATE_TTL_MS)
  redis.call('HSET', job, 'start_at', ms(now + wait))
  return {'booked', ms(wait + TIMER_MS)}
end

if mine then
  drop_booking(gate, bookings, held[6])
end
for _, name in ipairs(doubts) do
  mark('t:' .. name, ms(now))
  mark('d:' .. name, '1')
end
take(g, 1, p, o)
redis.call('HDEL', gate, 'since:' .. lane)
save_gate(g, marks)
pass_breaker(gate, g.has, now)
pass_breaker(provider, all, now)
spend(purse, tonumber(worst_nano), now, now)
if redis.call('HEXISTS', batch, 'cap_nano') == 1 then
  redis.call('ZADD', batch_calls, ms(now + call_ms), id .. '/' .. number)
  redis.call('PEXPIRE', batch_calls, GATE_TTL_MS)
end
redis.call('ZADD', inflight, ms(now + call_ms), id .. '/' .. number)
redis.call('PEXPIRE', inflight, GATE_TTL_MS)
redis.call('HSET', job, 'a:' .. number, row, 'by:' .. number, owner, 'u:' .. number, numbered(unknown_row, number),
  'at:' .. number, ms(now), 'n', ms(math.max(number, held[7] or 0)), 'updated', ms(now),
  'at_model', model)
redis.call('HDEL', job, 'booking', 'booked_in', 'start_at')
emit(events, now, 'started', held[1], generation, number)
wake_next(g, bookings)
local probe = (g.has.br == 'open' or all.br == 'open') and 'probe' or ''
return {'started', probe, g.levels.tpm and string.format('%.3f', g.levels.tpm) or '', g.has['drift:tpm'] or '0'}
