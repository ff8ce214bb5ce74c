-- What a request makes is found again by its key, or, where an SDK repeats a request by itself, by what it holds.
local function made_before(key, again, use_key, attach, id, hash)
  if use_key == '1' then
    local other, known = string.match(redis.call('GET', key) or '', '^(%S+) (%S+)$')
    if other and other ~= id then return {known == hash and 'exists' or 'conflict', other} end
  end
  if attach == '1' then
    local other, known = string.match(redis.call('GET', again) or '', '^(%S+) (%S+)$')
    if other and other ~= id and known == hash then return {'exists', other} end
  end
  return nil
end

local function note_made(key, again, use_key, id, hash, keep_ms, again_ms)
  if use_key == '1' then redis.call('SET', key, id .. ' ' .. hash, 'PX', keep_ms) end
  redis.call('SET', again, id .. ' ' .. hash, 'PX', again_ms)
end

-- A tenant's list; what is older than anything is kept is taken out of it.
local function note_in_list(list, id, now, list_ms)
  redis.call('ZADD', list, ms(now), id)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', ms(now - list_ms))
  redis.call('PEXPIRE', list, list_ms)
end

-- A document of a batch: a file without bytes, as it is rendered when it is read.
local function make_document(name, id, kind, of, now, keep_ms)
  redis.call('HSET', name, 'id', id, 'tenant', of.tenant, 'filename', of.id .. '_' .. kind .. '.jsonl', 'purpose',
    'batch_output', 'batch', of.id, 'kind', kind, 'created', ms(now), 'expires', ms(now + keep_ms))
  redis.call('PEXPIRE', name, keep_ms)
end
