-- The backlog: jobs without a ticket, by lane and model; in each, a flow for every queue and tenant. A flow is a sorted
-- set of jobs by deadline; `flows` orders the flows by the tokens they were given so far, so that shares are fair.
local NO_DEADLINE_MS = 86400000
-- Who comes late, or could not go for long, is at most so many tokens behind who was given the most: it catches up with
-- them first, and the others are not held for hours.
local CATCH_UP_TOKENS = 100000

local function put_in_backlog(backlog, flows, groups, group, flow, id, created, deadline)
  redis.call('ZADD', backlog, ms(deadline or created + NO_DEADLINE_MS), id)
  if not redis.call('ZSCORE', flows, flow) then
    local least = redis.call('ZRANGE', flows, 0, 0, 'WITHSCORES')
    local most = redis.call('ZRANGE', flows, -1, -1, 'WITHSCORES')
    redis.call('ZADD', flows, math.max(least[2] or 0, (most[2] or 0) - CATCH_UP_TOKENS), flow)
  end
  redis.call('SADD', groups, group)
end

local function take_from_backlog(backlog, flows, groups, group, flow, id, tokens)
  if redis.call('ZREM', backlog, id) == 0 then return false end
  if redis.call('EXISTS', backlog) == 1 then
    redis.call('ZINCRBY', flows, tokens, flow)
  else
    redis.call('ZREM', flows, flow)
    if redis.call('EXISTS', flows) == 0 then redis.call('SREM', groups, group) end
  end
  return true
end
