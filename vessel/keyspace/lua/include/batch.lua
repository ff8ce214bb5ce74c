-- The lines of a batch: each is counted and listed in the step that ends its job, and the last one ends its batch.
-- Most jobs are of no batch; theirs has no `line`.
local LATE_MS = 3600000
local EVENTS_MS = 60000

-- Lines stay readable for as long as their batch does: until its window is over, and the usual time after that.
local function kept_ms(batch, job, ttl_ms, now)
  local expires = redis.call('HEXISTS', job, 'line') == 1 and redis.call('HGET', batch, 'expires')
  if not expires then return ttl_ms end
  return ms(ttl_ms + math.max(0, expires - now) + LATE_MS)
end

-- A stream takes five kilobytes however short it is. Of a line that has its result it goes once its followers have read
-- it: the record tells the same life.
local function forget_events(job, events)
  if redis.call('HEXISTS', job, 'line') == 1 and redis.call('HEXISTS', job, 'response') == 1 then
    redis.call('PEXPIRE', events, EVENTS_MS)
  end
end

local function end_batch(batch, open_batches, hooks, now)
  local held = redis.call('HMGET', batch, 'left', 'ends_as', 'id', 'webhook')
  if not held[2] or tonumber(held[1]) > 0 then return end
  redis.call('HSET', batch, 'status', held[2], 'at:' .. held[2], ms(now), 'updated', ms(now))
  redis.call('HDEL', batch, 'ends_as')
  redis.call('ZREM', open_batches, held[3])
  batch_webhook(hooks, batch, held[4], held[3], held[2], now)
end

-- Of a line without an answer what its calls took all the same.
local function add_usage(batch, job)
  local found = redis.call('HMGET', job, 'usage', 'cost', 'charged')
  if not found[1] and found[3] then
    local i = 0
    for figure in string.gmatch(found[3], '%S+') do
      i = i + 1
      if CHARGED[i] then redis.call('HINCRBY', batch, CHARGED[i], figure) end
    end
  end
  if found[1] and found[1] ~= '' then
    for name, count in pairs(cjson.decode(found[1])) do
      -- What is said of tools beside the tokens is no count; an error here would leave the line half ended.
      if type(count) == 'number' then redis.call('HINCRBY', batch, 'u:' .. name, ms(count)) end
    end
  end
  if found[2] and found[2] ~= '' then
    redis.call('HINCRBY', batch, 'pico', pico(found[2]))
  end
end

local function line_ended(batch, lines_out, lines_err, lines_open, open_batches, hooks, job, to, now)
  local line = redis.call('HGET', job, 'line')
  if not line or redis.call('SREM', lines_open, line) == 0 then return end
  local life = redis.call('PTTL', batch)
  if life < 0 then return end
  if redis.call('HEXISTS', job, 'response') == 1 then
    redis.call('RPUSH', lines_out, line)
    redis.call('PEXPIRE', lines_out, life)
  else
    redis.call('RPUSH', lines_err, line)
    redis.call('PEXPIRE', lines_err, life)
  end
  redis.call('HINCRBY', batch, 'n:' .. to, 1)
  redis.call('HINCRBY', batch, 'e:' .. string.match(line, '^%d+'), 1)
  redis.call('HINCRBY', batch, 'left', -1)
  redis.call('HSET', batch, 'updated', ms(now))
  add_usage(batch, job)
  end_batch(batch, open_batches, hooks, now)
end
