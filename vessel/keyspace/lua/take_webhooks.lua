-- Lease webhooks that are due: until its lease is over, one process delivers each; should it die, they are due again.
-- KEYS: due
-- ARGV: limit at_receiver lease_ms *under_way
-- include: record
-- Returns: {now, end of the leases, member...}; `under_way` are receivers, each with how many calls to it run here.
-- A receiver with at_receiver calls is passed over. Where very many wait for such, those seen are put off for a while, so
-- that the ones behind them come into sight.
local PAGE, SEEN_AT_MOST, PUT_OFF_MS = 500, 5000, 20000
local now = now_ms()
local running, taken, passed, at = {}, {}, {}, 0
for i = MORE_ARGS, #ARGV, 2 do running[ARGV[i]] = tonumber(ARGV[i + 1]) end
repeat
  local page = redis.call('ZRANGE', due, '-inf', ms(now), 'BYSCORE', 'LIMIT', at, PAGE)
  for _, member in ipairs(page) do
    local receiver = string.match(member, ' (.*)$')
    local calls = running[receiver] or 0
    if calls >= tonumber(at_receiver) then
      passed[#passed + 1] = member
    elseif #taken < tonumber(limit) then
      running[receiver] = calls + 1
      taken[#taken + 1] = member
    end
  end
  at = at + #page
until #page < PAGE or #taken >= tonumber(limit) or at >= SEEN_AT_MOST
local lease = ms(now + lease_ms)
for _, member in ipairs(taken) do redis.call('ZADD', due, lease, member) end
if at >= SEEN_AT_MOST and #taken < tonumber(limit) then
  for _, member in ipairs(passed) do redis.call('ZADD', due, ms(now + PUT_OFF_MS), member) end
end
return {ms(now), lease, unpack(taken)}
