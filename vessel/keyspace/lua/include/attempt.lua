-- The ending of an attempt: written once (HSETNX), booked in the ledger once, so that a repeated call changes nothing.
-- A call that was booked as unknown and answers after all is amended: the old entry goes, the new one names it.
local function book_ledger(job, ledger, id, number, label, row, unknown)
  local known = redis.call('HGET', job, 'l:' .. number)
  if not known then
    local entry = redis.call('XADD', ledger, '*', 'call', id .. '/' .. number, 'outcome', label, 'row', row)
    redis.call('HSET', job, 'l:' .. number, entry .. ' ' .. label)
    return
  end
  local entry, was = string.match(known, '^(%S+) (%S+)$')
  if was == unknown and label ~= unknown then
    redis.call('XDEL', ledger, entry)
    local new = redis.call('XADD', ledger, '*', 'call', id .. '/' .. number, 'outcome', label, 'row', row,
      'amends', entry)
    redis.call('HSET', job, 'l:' .. number, new .. ' ' .. label)
  end
end

-- Returns true when this ending is news. `counted` is '1' when the attempt counts against max_attempts.
local function end_attempt(job, ledger, id, number, label, outcome_row, ledger_row, unknown, first_key, first, now)
  if number == '0' or redis.call('HSETNX', job, 'o:' .. number, label .. ' ' .. outcome_row) == 0 then
    return false
  end
  if ledger_row ~= '' then
    book_ledger(job, ledger, id, number, label, ledger_row, unknown)
  end
  settle(first_key, first, now)
  return true
end
