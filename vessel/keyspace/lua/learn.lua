-- Correct the gate by what an answer said, before its own settlement: for all workers at once.
-- KEYS: gate inflight provider
-- ARGV: configured call health scope why failures_to_open
-- ARGV: limit_requests remaining_requests limit_tokens remaining_tokens level_before drift_before
-- ARGV: refused_limit refused_cap refused_used refused_cost retry_after_ms plan charged
-- include: record
-- include: gate
-- include: breaker
-- `health`: good, bad or none; `scope`: model or provider. Figures that are not known are empty.
-- Headers tell requests per DAY and tokens per MINUTE (groq-facts 1.7), as they were when the answer left. So only what is
-- below all that was left after this call's start, lately and now speaks of another program; it is taken off, once for all
-- calls that were under way (`drift:tpm` counts). What refills while an answer is on its way, for 150 ms, is no sign of
-- anybody. What is left beyond all that the calls under way may have charged is believed upwards.
-- `plan` are the six limits of the plan whose figures the headers name, else empty: they are believed when those figures
-- are news, since no header tells requests per minute or tokens per day.
-- A refusal names one limit exactly; a wait without figures holds the whole model back.
-- Returns: the model's breaker afterwards, or the provider's where that is the scope.
local LEAST_DRIFT, DRIFT_PART = 16, 0.0025
local HELD_AT_MOST_MS = 60000
local LARGER_CALLS = 3
local now = now_ms()
local g = open_gate(gate, configured, now)
local more = {'seen', '1'}
local function set(name, value) more[#more + 1], more[#more + 2] = name, value end

local dropped = {}
local function drop(name) dropped[#dropped + 1] = name end

local function widen(name, amount)
  g.margins[name] = math.min(g.caps[name] * LARGEST_MARGIN, math.max(g.margins[name], amount))
end

-- Take a limit as the upstream states it: what is used stays used, and a limit not known before starts full.
local function believe(name, cap)
  cap = tonumber(cap)
  if not cap or cap <= 0 then return end
  set('t:' .. name, ms(now))
  if g.has['d:' .. name] then drop('d:' .. name) end
  if g.caps[name] == cap then return end
  g.levels[name] = math.min(cap, (g.levels[name] or cap) + cap - (g.caps[name] or cap))
  g.margins[name] = g.margins[name] or 0
  g.caps[name] = cap
  set('c:' .. name, ms(cap))
  return true
end

local function believe_plan()
  local i = 0
  for figure in string.gmatch(plan, '%d+') do
    i = i + 1
    if NAMES[i] == 'rpd' or NAMES[i] == 'tpm' then
      -- The headers themselves have told it.
    elseif figure == '0' then
      g.caps[NAMES[i]], g.levels[NAMES[i]] = nil, nil
      set('c:' .. NAMES[i], '0')
    else
      believe(NAMES[i], figure)
    end
  end
end

local function compare(name, remaining, before, under_way)
  local level = g.levels[name]
  remaining = tonumber(remaining)
  if not level or not remaining then return end
  local seen = tonumber(g.has['drift:' .. name] or 0)
  local expected = level
  if name == 'tpm' then
    local _, low, low_before = lows(g)
    expected = math.min(low, low_before)
  end
  if before ~= '' then expected = math.min(expected, tonumber(before) - (seen - tonumber(drift_before))) end
  local gone = expected - remaining
  if gone > math.max(name == 'tpm' and LEAST_DRIFT or 1, g.caps[name] * DRIFT_PART) then
    g.levels[name] = level - gone
    set('drift:' .. name, string.format('%.3f', seen + gone))
    widen(name, 2 * gone)
  elseif remaining - under_way > level then
    g.levels[name] = math.min(g.caps[name], remaining - under_way)
  end
end

local others = math.max(0, redis.call('ZCARD', inflight) - 1)
local requests_are_news, tokens_are_news = believe('rpd', limit_requests), believe('tpm', limit_tokens)
if requests_are_news or tokens_are_news then believe_plan() end
if refused_limit == '' then
  compare('tpm', remaining_tokens, level_before, LARGER_CALLS * others * tonumber(charged))
  compare('rpd', remaining_requests, '', others)
elseif PERIOD[refused_limit] and refused_cap ~= '' then
  believe(refused_limit, refused_cap)
  if refused_used ~= '' then
    local over = tonumber(refused_used) + tonumber(refused_cost) - g.caps[refused_limit]
    -- The refused call gives its own charge back in its ending.
    local left = g.caps[refused_limit] - tonumber(refused_used) - tonumber(refused_cost)
    g.levels[refused_limit] = math.min(g.levels[refused_limit], left)
    widen(refused_limit, 2 * math.max(over, g.margins[refused_limit]))
  end
end
-- A bucket with exact figures holds such calls by itself, and smaller ones need not wait with them.
local told = refused_used ~= '' and g.levels[refused_limit] and g.levels[refused_limit] < 0
if tonumber(retry_after_ms) > 0 and not told then
  local until_ms = now + math.min(HELD_AT_MOST_MS, tonumber(retry_after_ms))
  if until_ms > tonumber(g.has.blocked_until or 0) then
    set('blocked_until', ms(until_ms))
    set('blocked_why', refused_limit ~= '' and refused_limit or 'retry-after')
  end
end
-- A doubted limit that no header names and that let a call pass is forgotten: what is configured counts, or a refusal.
if health == 'good' and refused_limit == '' then
  for _, name in ipairs(NAMES) do
    if g.has['d:' .. name] and name ~= 'rpd' and name ~= 'tpm' then
      for _, field in ipairs({'c:', 't:', 'd:', 'l:', 'k:'}) do drop(field .. name) end
      g.caps[name], g.levels[name] = nil, nil
    end
  end
end
save_gate(g, more)
if #dropped > 0 then redis.call('HDEL', gate, unpack(dropped)) end
if health == 'none' then
  return g.has.br or 'closed'
end
local all = read_breaker(provider)
if health == 'good' then
  note_health(provider, all, true, call, why, 0, now)
  return note_health(gate, g.has, true, call, why, 0, now)
end
if scope == 'provider' then
  local state = note_health(provider, all, false, call, why, tonumber(failures_to_open), now)
  redis.call('PEXPIRE', provider, GATE_TTL_MS)
  return state
end
local known = g.has.br_last == call
local state = note_health(gate, g.has, false, call, why, tonumber(failures_to_open), now)
if not known and note_across(provider, all, gate, why, now) == 'open' then state = 'open' end
redis.call('PEXPIRE', provider, GATE_TTL_MS)
return state
