-- A job has ended: its keys get their last time to live and its waiter is woken.
local REPLIES_KEPT = 10000
local REPLY_TTL_MS = 3600000

local function ended(job, events, tokens, idem, reply, id, to, ttl_ms)
  redis.call('PEXPIRE', job, ttl_ms)
  redis.call('PEXPIRE', events, ttl_ms)
  redis.call('PEXPIRE', tokens, ttl_ms)
  redis.call('PEXPIRE', idem, ttl_ms)
  local waiter = redis.call('HGET', job, 'reply')
  if waiter and waiter ~= '' then
    redis.call('XADD', reply, 'MAXLEN', '~', REPLIES_KEPT, '*', 'job', id, 'state', to)
    redis.call('PEXPIRE', reply, REPLY_TTL_MS)
  end
end
