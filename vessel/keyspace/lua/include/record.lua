-- Time in milliseconds of Redis' clock, membership in a comma-separated list, and one event of a job.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function among(list, value)
  return value and string.find(',' .. list .. ',', ',' .. value .. ',', 1, true) ~= nil
end

local function ms(value)
  local text = string.format('%.0f', value)
  return text == '-0' and '0' or text  -- which Redis takes for no integer
end

local EVENTS_KEPT = 200

local function emit(stream, now, name, state, generation, more)
  redis.call('XADD', stream, 'MAXLEN', '~', EVENTS_KEPT, '*', 'event', name, 'state', state, 'generation', generation,
    'at', ms(now), 'detail', more or '')
end
