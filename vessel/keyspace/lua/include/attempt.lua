-- The ending of a line without an answer has added what its calls took to its batch; what is known later goes after it.
local function add_late_usage(call, figures, sign)
  local line = redis.call('HMGET', call.job, 'line', 'finished', 'usage')
  if not line[1] or not line[2] or line[3] or redis.call('HEXISTS', call.batch, 'id') == 0 then return end
  for i, name in ipairs(CHARGED) do
    redis.call('HINCRBY', call.batch, name, ms(sign * (tonumber(figures[i]) or 0)))
  end
end

-- What calls of a job took that did not answer it, in its field `charged`: input, output and cached tokens, 10^-12 USD, of
-- how many calls all that is a guess, and of how many the price. `sign` -1 takes an entry out again.
local function charge_job(call, row, guessed, sign)
  local is_json, told = pcall(cjson.decode, row)
  if not is_json or type(told) ~= 'table' then return end
  local tokens = type(told.tokens) == 'table' and told.tokens or {}
  local figures = {tokens.input, tokens.output, tokens.cached, pico(string.match(row, '"cost_usd":(%d+%.?%d*)') or ''),
    guessed and 1 or 0, told.estimated == true and 1 or 0}
  add_late_usage(call, figures, sign)
  local i = 0
  for before in string.gmatch(redis.call('HGET', call.job, 'charged') or '0 0 0 0 0 0', '%S+') do
    i = i + 1
    figures[i] = ms(before + sign * (tonumber(figures[i]) or 0))
  end
  redis.call('HSET', call.job, 'charged', table.concat(figures, ' '))
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
      charge_job(call, guess, true, -1)
    end
    redis.call('XDEL', call.ledger, entry)
  end
  entry = redis.call('XADD', call.ledger, '*', 'call', call.id .. '/' .. call.number, 'outcome', label, 'row', row,
    unpack(more))
  add_sums(call.sums, call.tag_sums, entry, label, row, '', label == call.unknown)
  if not call.answers then charge_job(call, row, label == call.unknown, 1) end
  redis.call('HSET', call.job, field, entry .. ' ' .. label)
end

-- Book the calls that a lost lease left in flight as unknown, under their write-ahead rows: one, but for a number that two
-- calls had counted. Returns the numbers of those that are news.
local function book_cut(call)
  local news = {}
  for number = 1, tonumber(redis.call('HGET', call.job, 'n') or 0) do
    local held = redis.call('HMGET', call.job, 'u:' .. number, 'o:' .. number, 'l:' .. number)
    if held[1] and not held[2] and not held[3] then
      news[#news + 1] = number
      local lost = {job = call.job, ledger = call.ledger, sums = call.sums, tag_sums = call.tag_sums, batch = call.batch,
        id = call.id, number = number, unknown = call.unknown}
      book_ledger(lost, call.unknown, held[1])
    end
  end
  return news
end

-- The entry of a call that was booked as unknown and cost nothing after all: the guess without its figures.
local function free_row(call)
  local held = redis.call('HMGET', call.job, 'l:' .. call.number, 'u:' .. call.number)
  if not held[1] or string.match(held[1], '%S+$') ~= call.unknown then return '' end
  local row = string.gsub(held[2] or '{}', '"tokens":%b{}', '"tokens":{"input":0,"output":0,"cached":0}', 1)
  row = string.gsub(row, '"cost_usd":%d+%.?%d*', '"cost_usd":0', 1)
  return (string.gsub(row, '"estimated":true', '"estimated":false', 1))
end

-- Redis may have lost its last second, and with it the record or this attempt's row. A lost record leaves a stub with
-- a time to live, so that the call is booked once; a lost row is written again, so that its number is not used twice.
-- Returns whether the start is lost, and with it all that was charged for the call.
local function restore_attempt(call, inflight, now)
  local left = redis.call('HMGET', call.job, 'state', 'a:' .. call.number, 'model', 'tier', 'n')
  if left[2] then return false end
  redis.call('HSET', call.job, 'by:' .. call.number, call.owner)
  if not left[1] then
    redis.call('PEXPIRE', call.job, call.ttl_ms)
  else
    local row = {model = left[3], tier = left[4], worker = call.owner, worst_nano_usd = 0}
    redis.call('HSET', call.job, 'a:' .. call.number, cjson.encode(row), 'at:' .. call.number, ms(now),
      'n', ms(math.max(tonumber(left[5] or 0), tonumber(call.number))))
  end
  return not redis.call('ZSCORE', inflight, call.id .. '/' .. call.number)
end

-- `call` holds job, ledger, sums, tag_sums, batch, id, number ('0': no call was made), owner, unknown, failed, ttl_ms, and
-- `answers` where it is the one that answers its job; its number may become another one here. An empty ledger row is not
-- booked, unless the call was, as unknown: then it is amended as failed, at no cost. `back` says what returns to the gate:
-- its keys, the configured limits, requests, prompt, output, nano-USD.
local function end_attempt(call, label, outcome_row, ledger_row, back, now)
  if call.number ~= '0' then
    -- Above maxmemory Redis refuses a script's first write if it may enlarge memory, and none after it. This one does not,
    -- so what was paid for is written when new work is refused already.
    redis.call('HDEL', call.job, '')
    call.number = own_number(call.job, call.owner, call.number)
  end
  if call.number == '0'
    or redis.call('HSETNX', call.job, 'o:' .. call.number, label .. ' ' .. outcome_row) == 0 then
    return
  end
  local lost = restore_attempt(call, back.inflight, now)
  if ledger_row ~= '' then
    book_ledger(call, label, numbered(ledger_row, call.number))
  else
    local row = free_row(call)
    if row ~= '' then book_ledger(call, call.failed, row) end
  end
  local member = call.id .. '/' .. call.number
  if lost then
    -- Nothing is left that could come back: what it cost is spent now, and the gate learns by the answer's headers.
    settle(back.gate, back.bookings, back.inflight, back.configured, member, 0, 0, 0, now)
    spend(back, tonumber(string.match(outcome_row, '"cost_nano_usd":(%d+)') or 0), now, now)
  else
    settle(back.gate, back.bookings, back.inflight, back.configured, member, back.requests, back.prompt, back.output, now)
    local started = tonumber(redis.call('HGET', call.job, 'at:' .. call.number) or now)
    spend(back, -tonumber(back.nano), started, now)
  end
  redis.call('ZREM', back.batch_calls, member)
end
