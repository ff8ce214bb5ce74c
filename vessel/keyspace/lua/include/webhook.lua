-- A webhook is due from the step on that ends its job or batch, so that no crash comes between the two. Its record holds
-- what is told, as the job or batch may go before it. `hooks`: the keys `due` and `log`, and the records `job`, `batch`.
local WEBHOOK_MS = 604800000
local LISTED_MS, LISTED = 2592000000, 100000
local JOB_TOLD = {'tenant', 'tier', 'model', 'served_tier', 'served_model', 'served_vessel', 'priority', 'usage', 'cost',
  'charged', 'reason', 'created', 'n', 'batch', 'custom', 'retry_of'}

-- A member of `due` is an id and its receiver, so that a slow receiver is passed over without reading a record.
local function webhook_member(id, url)
  return id .. ' ' .. string.lower(string.match(url, '^%a+://([^/?#]+)') or '')
end

local function webhook_due(hooks, record, id, kind, to, url, told, keep_ms, now)
  redis.call('HSET', record, 'id', id, 'kind', kind, 'state', to, 'url', url, 'at', ms(now), 'next', ms(now),
    unpack(told))
  redis.call('PEXPIRE', record, ms(math.max(keep_ms, WEBHOOK_MS)))
  redis.call('ZADD', hooks.due, ms(now), webhook_member(id, url))
  redis.call('ZADD', hooks.log, ms(now), id)
  redis.call('ZREMRANGEBYSCORE', hooks.log, '-inf', ms(now - LISTED_MS))
  redis.call('ZREMRANGEBYRANK', hooks.log, 0, -LISTED - 1)
  redis.call('PEXPIRE', hooks.log, LISTED_MS)
end

local function job_webhook(hooks, job, url, id, to, keep_ms, now)
  if not url or url == '' then return end
  local told = {}
  local found = redis.call('HMGET', job, unpack(JOB_TOLD))
  for i, name in ipairs(JOB_TOLD) do
    if found[i] then told[#told + 1], told[#told + 2] = 'd:' .. name, found[i] end
  end
  webhook_due(hooks, hooks.job, id, 'job', to, url, told, keep_ms, now)
end

-- Of a batch's record its sums are told, not the places of its lines.
local function batch_webhook(hooks, batch, url, id, to, now)
  if not url or url == '' then return end
  local told = {}
  local flat = redis.call('HGETALL', batch)
  for i = 1, #flat, 2 do
    if string.match(flat[i], '^[nu]:') or among('tenant,file,model,created,total,pico', flat[i]) then
      told[#told + 1], told[#told + 2] = 'd:' .. flat[i], flat[i + 1]
    end
  end
  webhook_due(hooks, hooks.batch, id, 'batch', to, url, told, redis.call('PTTL', batch), now)
end
