-- End a job: attempt, ledger, settlement, state, result and event in one step.
-- A valid answer (valid = 1) wins from any open state, also out of a lost lease; anything else must hold the lease.
-- KEYS: job events idem reply leases parked deadlines tickets ledger *buckets
-- ARGV: id generation owner attempt label late_label unknown outcome_row ledger_row valid from running to ttl_ms *rest
-- include: record
-- include: bucket
-- include: attempt
-- A record that is gone (power loss, TTL) still leaves its paid call in the ledger.
-- Returns: {finished, state} {late, state} {superseded, state} {missing}. Repeating the call changes nothing.
-- `rest`: the number of result fields, the field-value words, then the settlement triples capacity, period, give back.
local held = redis.call('HMGET', job, 'state', 'gen', 'owner', 'reply', 'booking')
if not held[1] then
  if ledger_row ~= '' then
    redis.call('XADD', ledger, '*', 'call', id .. '/' .. attempt, 'outcome', late_label, 'row', ledger_row)
  end
  return {'missing', ''}
end
local now = now_ms()
local words = tonumber(ARGV[15])
local open = among(from, held[1])
local owned = held[1] == running and held[2] == generation and held[3] == owner
local used = open and (valid == '1' or owned)
local news = end_attempt(job, ledger, id, attempt, (valid == '1' and not used) and late_label or label, outcome_row,
  ledger_row, unknown, 10, 16 + words, now)
if not used then
  return {(not news and held[1] == to) and 'finished' or (open and 'superseded' or 'late'), held[1]}
end
if attempt == '0' and held[5] then
  settle(10, 16 + words, now)
end
local fields = {}
for i = 16, 15 + words do fields[#fields + 1] = ARGV[i] end
local next_generation = held[2] + 1
redis.call('HSET', job, 'state', to, 'gen', next_generation, 'updated', ms(now), 'finished', ms(now), unpack(fields))
redis.call('HDEL', job, 'owner', 'lease', 'until', 'booking', 'start_at')
redis.call('ZREM', leases, id)
redis.call('ZREM', parked, id)
redis.call('ZREM', deadlines, id)
redis.call('ZREM', tickets, id)
emit(events, now, to, to, next_generation, attempt)
redis.call('PEXPIRE', job, ttl_ms)
redis.call('PEXPIRE', events, ttl_ms)
redis.call('PEXPIRE', idem, ttl_ms)
if held[4] and held[4] ~= '' then
  redis.call('XADD', reply, 'MAXLEN', '~', 10000, '*', 'job', id, 'state', to)
  redis.call('PEXPIRE', reply, 3600000)
end
return {'finished', to}
