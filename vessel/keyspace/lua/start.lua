-- Admit, charge and write the attempt row: the last step before the bytes leave. All limits or none are charged.
-- A wait of at most book_ms is booked: charged now (the level goes below zero), to be started at the time returned.
-- KEYS: job events gate *buckets
-- ARGV: generation owner attempt row unknown_row booking book_ms from *limits
-- include: record
-- include: bucket
-- Returns: {started, now} {booked, wait_ms} {wait, wait_ms, which} {too_large, which} {cancel_requested} {superseded}
-- `limits` are triples capacity, period_ms, cost, one per bucket key. `which` is an index, 0 for the gate.
-- Repeating it changes nothing: a booking is not started before its time, but for the worker's own timer's error.
local TIMER_MS = 5
local now = now_ms()
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'cancel', 'booked_in', 'start_at')
if not among(from, held[1]) or held[2] ~= generation or held[3] ~= owner then
  free_booking(job, generation, MORE_KEYS, MORE_ARGS, now)
  return {'superseded', held[1] or ''}
end
if redis.call('HEXISTS', job, 'a:' .. attempt) == 1 then
  return {'started', ms(now)}
end
if held[4] == '1' then
  return {'cancel_requested'}
end
local blocked = tonumber(redis.call('HGET', gate, 'blocked_until') or 0)
if blocked > now then
  return {'wait', ms(blocked - now), 0}
end
if held[5] then
  if tonumber(held[6]) > now + TIMER_MS then
    return {'booked', ms(held[6] - now)}
  end
else
  local levels, wait, which = {}, 0, 0
  for k = MORE_KEYS, #KEYS do
    local at = MORE_ARGS + (k - MORE_KEYS) * 3
    local capacity, period, cost = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if cost > capacity then
      return {'too_large', k - MORE_KEYS + 1}
    end
    levels[k] = level_of(KEYS[k], capacity, period, now) - cost
    local needed = math.ceil(-levels[k] * period / capacity)
    if needed > wait then
      wait, which = needed, k - MORE_KEYS + 1
    end
  end
  if wait > tonumber(book_ms) then
    return {'wait', ms(wait), which}
  end
  for k = MORE_KEYS, #KEYS do
    local at = MORE_ARGS + (k - MORE_KEYS) * 3
    set_level(KEYS[k], levels[k], tonumber(ARGV[at]), tonumber(ARGV[at + 1]), now)
  end
  if wait > 0 then
    redis.call('HSET', job, 'booking', booking, 'booked_in', generation, 'start_at', ms(now + wait))
    emit(events, now, 'booked', held[1], generation, ms(wait))
    return {'booked', ms(wait)}
  end
end
redis.call('HSET', job, 'a:' .. attempt, row, 'u:' .. attempt, unknown_row, 'at:' .. attempt, ms(now), 'n', attempt,
  'updated', ms(now))
redis.call('HDEL', job, 'booking', 'booked_in', 'start_at')
emit(events, now, 'started', held[1], generation, attempt)
return {'started', ms(now)}
