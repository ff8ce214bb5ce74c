-- Forget a job of the backlog whose record has gone, and its flow and group when nothing else waits in them.
-- KEYS: backlog flows groups
-- ARGV: id group flow
-- include: backlog
-- Returns: 1 where the job was there, else 0.
local there = take_from_backlog(backlog, flows, groups, group, flow, id, 0)
if redis.call('EXISTS', backlog) == 0 then redis.call('ZREM', flows, flow) end
if redis.call('EXISTS', flows) == 0 then redis.call('SREM', groups, group) end
return there and 1 or 0
