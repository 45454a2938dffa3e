-- A digest of everything in the selected database: each key's name, type, value and expiry.
-- Nothing of rdbkeeper takes part in it.
-- Before 7.0 no server tells the moment of an expiry: there only its being is compared.
local function expiry(key)
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) == 'table' then return redis.call('PTTL', key) >= 0 and 'expires' or 'stays' end
  return at
end

local keys = redis.call('KEYS', '*')
table.sort(keys)
local digest = ''
for _, key in ipairs(keys) do
  local kind = redis.call('TYPE', key).ok
  local value
  if kind == 'string' then value = { redis.call('GET', key) }
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key); table.sort(value)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'hash' then
    local flat = redis.call('HGETALL', key)
    value = {}
    for i = 1, #flat, 2 do value[#value + 1] = flat[i] .. '\0' .. flat[i + 1] end
    table.sort(value)
  else value = { redis.call('DUMP', key) } end
  for i, part in ipairs(value) do value[i] = #part .. ':' .. part end
  digest = redis.sha1hex(table.concat({
    digest, #key, key, kind, expiry(key), table.concat(value) }, '\0'))
end
return #keys .. ' keys, ' .. digest
