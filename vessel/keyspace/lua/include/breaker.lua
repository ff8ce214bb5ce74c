-- The circuit breaker of a model or, in the provider's own hash, of everything behind one key: closed, open (one call
-- or one look a while), ramp (slowly more after a recovery). `h` is the hash as read.
local PROBE_MS = 5000
local RAMP_STEP_MS, RAMP_STEPS, RAMP_FIRST = 500, 16, 2
-- Nobody has looked for so long after a look was due: whatever it was may be over, so it is begun slowly and not held.
local IDLE_MS = 5000
-- Failures in a row over at least two models: not one model's trouble.
local ACROSS_FAILURES, ACROSS_MODELS = 4, 2

local BREAKER_FIELDS = {'br', 'br_at', 'br_next', 'br_why', 'br_probes', 'br_fails', 'br_last', 'ramp_step', 'ramp_n',
  'across_n', 'across_seen', 'across_models'}

local function read_breaker(key)
  local found, h = redis.call('HMGET', key, unpack(BREAKER_FIELDS)), {}
  for i, name in ipairs(BREAKER_FIELDS) do h[name] = found[i] or nil end
  return h
end

-- May a call go now? Returns nil, or how long to wait and why. An open breaker lets one call pass now and then, to look.
local function held_by_breaker(h, now)
  if h.br == 'open' then
    local next_probe = tonumber(h.br_next or 0)
    if next_probe > now then return next_probe - now, h.br_why or 'outage' end
    return nil
  end
  if h.br == 'ramp' then
    local step = math.floor((now - tonumber(h.br_at)) / RAMP_STEP_MS)
    if step < RAMP_STEPS and step == tonumber(h.ramp_step or -1) and tonumber(h.ramp_n) >= RAMP_FIRST * 2 ^ step then
      return RAMP_STEP_MS - (now - tonumber(h.br_at)) % RAMP_STEP_MS, 'ramp'
    end
  end
  return nil
end

-- Count a call that goes.
local function pass_breaker(key, h, now)
  if h.br == 'open' and now - tonumber(h.br_next or now) >= IDLE_MS then
    redis.call('HSET', key, 'br', 'ramp', 'br_at', ms(now), 'ramp_step', 0, 'ramp_n', 1)
  elseif h.br == 'open' then
    redis.call('HINCRBY', key, 'br_probes', 1)
    redis.call('HSET', key, 'br_next', ms(now + PROBE_MS))
  elseif h.br == 'ramp' then
    local step = math.floor((now - tonumber(h.br_at)) / RAMP_STEP_MS)
    if step >= RAMP_STEPS then
      redis.call('HDEL', key, 'br', 'br_at', 'br_why', 'br_probes', 'br_next', 'ramp_step', 'ramp_n')
    elseif step == tonumber(h.ramp_step or -1) then
      redis.call('HINCRBY', key, 'ramp_n', 1)
    else
      redis.call('HSET', key, 'ramp_step', step, 'ramp_n', 1)
    end
  end
end

local function open_breaker(key, h, why, now)
  if h.br ~= 'open' then
    redis.call('HSET', key, 'br', 'open', 'br_at', ms(now), 'br_why', why, 'br_next', ms(now + PROBE_MS), 'br_probes', 0)
    h.br = 'open'
  end
end

-- Record how a call ended; of a failure that is told twice the second time counts nothing. Returns the state afterwards.
local function note_health(key, h, healthy, call, why, failures_to_open, now)
  if healthy then
    if h.br == 'open' then
      redis.call('HSET', key, 'br', 'ramp', 'br_at', ms(now), 'ramp_step', -1, 'ramp_n', 0)
      h.br = 'ramp'
    end
    if h.br_fails or h.across_n then
      redis.call('HDEL', key, 'br_fails', 'across_n', 'across_seen', 'across_models')
    end
    return h.br or 'closed'
  end
  if h.br_last == call then return h.br or 'closed' end
  redis.call('HSET', key, 'br_last', call)
  local fails = redis.call('HINCRBY', key, 'br_fails', 1)
  if fails >= failures_to_open or h.br == 'ramp' and fails >= math.min(3, failures_to_open) then
    open_breaker(key, h, why, now)
  end
  return h.br or 'closed'
end

-- Record a model's failure with the provider: many in a row on several models are an outage of all. Returns its state.
local function note_across(key, h, model, why, now)
  local n = redis.call('HINCRBY', key, 'across_n', 1)
  local models = tonumber(h.across_models or 0)
  if h.across_seen ~= model then
    models = redis.call('HINCRBY', key, 'across_models', 1)
    redis.call('HSET', key, 'across_seen', model)
  end
  if n >= ACROSS_FAILURES and models >= ACROSS_MODELS then open_breaker(key, h, why, now) end
  return h.br or 'closed'
end
