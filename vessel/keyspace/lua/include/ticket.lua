-- Push a Celery envelope made from its template, and note the ticket as issued. Its retries, which Flower shows, are the
-- calls that the job has made so far.
local function fill(template, marks)
  return (string.gsub(template, '@%u+@', marks))
end

local function push_ticket(job_key, queue_key, tickets_key, template, queue, id, generation, repr, now)
  local name = id .. ':' .. generation
  redis.call('LPUSH', queue_key, fill(template, {
    ['@QUEUE@'] = queue,
    ['@TAG@'] = name .. ':' .. ms(now),
    ['@TASK@'] = name,
    ['@ARGS@'] = '[[\\"' .. id .. '\\",' .. generation .. ']]',
    ['@REPR@'] = name .. ' ' .. repr,
    ['@RETRIES@'] = redis.call('HGET', job_key, 'n') or '0',
  }))
  redis.call('ZADD', tickets_key, ms(now), id)
end
