-- A job has ended: its keys get their last time to live and its waiter is woken.
local function ended(job, events, idem, reply, id, to, ttl_ms)
  redis.call('PEXPIRE', job, ttl_ms)
  redis.call('PEXPIRE', events, ttl_ms)
  redis.call('PEXPIRE', idem, ttl_ms)
  local waiter = redis.call('HGET', job, 'reply')
  if waiter and waiter ~= '' then
    redis.call('XADD', reply, 'MAXLEN', '~', 10000, '*', 'job', id, 'state', to)
    redis.call('PEXPIRE', reply, 3600000)
  end
end
