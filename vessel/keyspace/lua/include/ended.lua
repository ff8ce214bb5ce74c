-- A job has ended: its keys get their last time to live, its waiter is woken and its webhook is due.
local REPLIES_KEPT = 10000
local REPLY_TTL_MS = 3600000

local function ended(job, events, tokens, idem, reply, hooks, id, to, ttl_ms, now)
  redis.call('PEXPIRE', job, ttl_ms)
  redis.call('PEXPIRE', events, ttl_ms)
  redis.call('PEXPIRE', tokens, ttl_ms)
  redis.call('PEXPIRE', idem, ttl_ms)
  local found = redis.call('HMGET', job, 'reply', 'webhook')
  if found[1] and found[1] ~= '' then
    redis.call('XADD', reply, 'MAXLEN', '~', REPLIES_KEPT, '*', 'job', id, 'state', to)
    redis.call('PEXPIRE', reply, REPLY_TTL_MS)
  end
  job_webhook(hooks, job, found[2], id, to, ttl_ms, now)
end
