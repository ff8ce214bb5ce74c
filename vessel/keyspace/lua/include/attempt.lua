-- What calls of a job took that did not answer it, in its field `charged`: input, output and cached tokens, 10^-12 USD, of
-- how many calls all that is a guess, and of how many the price. `sign` -1 takes an entry out again.
local function charge_job(job, row, guessed, sign)
  local is_json, told = pcall(cjson.decode, row)
  if not is_json or type(told) ~= 'table' then return end
  local tokens = type(told.tokens) == 'table' and told.tokens or {}
  local figures = {tokens.input, tokens.output, tokens.cached, pico(string.match(row, '"cost_usd":(%d+%.?%d*)') or ''),
    guessed and 1 or 0, told.estimated == true and 1 or 0}
  local i = 0
  for before in string.gmatch(redis.call('HGET', job, 'charged') or '0 0 0 0 0 0', '%S+') do
    i = i + 1
    figures[i] = ms(before + sign * (tonumber(figures[i]) or 0))
  end
  redis.call('HSET', job, 'charged', table.concat(figures, ' '))
end

-- The ending of an attempt: written once (HSETNX), booked in the ledger once, so that a repeated call changes nothing.
-- A call that was booked as unknown and answers after all is amended: the old entry goes, the new one names it.
local function book_ledger(call, label, row)
  local field = 'l:' .. call.number
  local known = redis.call('HGET', call.job, field)
  local entry, was = string.match(known or '', '^(%S+) (%S+)$')
  local more = {}
  if entry then
    if was ~= call.unknown or label == call.unknown then return end
    more = {'amends', entry}
    local guess = redis.call('HGET', call.job, 'u:' .. call.number)
    local found = redis.call('XRANGE', call.ledger, entry, entry)[1]
    for i = 1, found and #found[2] or 0, 2 do
      if found[2][i] == 'row' then guess = found[2][i + 1] end
    end
    if guess then
      add_sums(call.sums, call.tag_sums, entry, was, guess, '-', true)
      charge_job(call.job, guess, true, -1)
    end
    redis.call('XDEL', call.ledger, entry)
  end
  entry = redis.call('XADD', call.ledger, '*', 'call', call.id .. '/' .. call.number, 'outcome', label, 'row', row,
    unpack(more))
  add_sums(call.sums, call.tag_sums, entry, label, row, '', label == call.unknown)
  if not call.answers then charge_job(call.job, row, label == call.unknown, 1) end
  redis.call('HSET', call.job, field, entry .. ' ' .. label)
end

-- Book the call that a lost lease left in flight as unknown, under its write-ahead row. True when that is news.
local function book_cut(call)
  local number = redis.call('HGET', call.job, 'n')
  if not number or redis.call('HEXISTS', call.job, 'o:' .. number) == 1
    or redis.call('HEXISTS', call.job, 'l:' .. number) == 1 then
    return false
  end
  local lost = {job = call.job, ledger = call.ledger, sums = call.sums, tag_sums = call.tag_sums, id = call.id,
    number = number, unknown = call.unknown}
  book_ledger(lost, call.unknown, redis.call('HGET', call.job, 'u:' .. number))
  return true
end

-- Redis may have lost its last second, and with it the record or this attempt's row. A lost record leaves a stub with
-- a time to live, so that the call is booked once; a lost row is written again, so that its number is not used twice.
local function restore_attempt(call, now)
  local left = redis.call('HMGET', call.job, 'state', 'a:' .. call.number, 'model', 'tier', 'n')
  if not left[1] then
    redis.call('PEXPIRE', call.job, call.ttl_ms)
  elseif not left[2] then
    local row = {model = left[3], tier = left[4], worker = call.owner, worst_nano_usd = 0}
    redis.call('HSET', call.job, 'a:' .. call.number, cjson.encode(row), 'at:' .. call.number, ms(now),
      'n', ms(math.max(tonumber(left[5] or 0), tonumber(call.number))))
  end
end

-- `call` holds job, ledger, sums, tag_sums, id, number ('0': no call was made), owner, unknown, ttl_ms, and `answers` where it
-- is the one that answers its job. An empty ledger row is not booked. `back` says what returns to the gate: its keys, the
-- configured limits, requests, prompt, output, nano-USD.
local function end_attempt(call, label, outcome_row, ledger_row, back, now)
  if call.number ~= '0' then
    -- Above maxmemory Redis refuses a script's first write if it may enlarge memory, and none after it. This one does not,
    -- so what was paid for is written when new work is refused already.
    redis.call('HDEL', call.job, '')
  end
  if call.number == '0'
    or redis.call('HSETNX', call.job, 'o:' .. call.number, label .. ' ' .. outcome_row) == 0 then
    return
  end
  restore_attempt(call, now)
  if ledger_row ~= '' then
    book_ledger(call, label, ledger_row)
  end
  settle(back.gate, back.bookings, back.inflight, back.configured, call.id .. '/' .. call.number, back.requests,
    back.prompt, back.output, now)
  local started = tonumber(redis.call('HGET', call.job, 'at:' .. call.number) or now)
  spend(back, -tonumber(back.nano), started, now)
  redis.call('ZREM', back.batch_calls, call.id .. '/' .. call.number)
end
