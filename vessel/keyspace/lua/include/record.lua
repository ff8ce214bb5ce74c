-- Time in milliseconds of Redis' clock, membership in a comma-separated list, amounts, and one event of a job.
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

local PICO_DIGITS = 12

-- An amount like 0.0000123 in units of 10^-12, as a text, because it may be larger than a number here is exact.
local function pico(amount)
  local whole, part = string.match(amount, '^(%d+)%.?(%d*)$')
  if not whole then return '0' end
  local digits = whole .. string.sub(part .. string.rep('0', PICO_DIGITS), 1, PICO_DIGITS)
  digits = string.gsub(digits, '^0+', '')
  return digits == '' and '0' or digits
end

-- The figures of a job's `charged` that its batch sums up as well, in their order.
local CHARGED = {'u:prompt_tokens', 'u:completion_tokens', 'u:cached_tokens', 'pico'}
