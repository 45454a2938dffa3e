-- Acts on keys in one step with a check that each is still what was decided upon.
--
-- ARGV, read from its beginning to its end; KEYS likewise:
--   1 where PEXPIRETIME, NX and LT are known (from 7.0 on);
--   a count, and so many lines that INFO must still have for deletions by idle time;
--   the longest idle time that is believed, in seconds, and since when a key can have been idle (Unix, seconds);
--   then of each key (one of KEYS):
--     what is to be done (`expire` and its time, or `delete`)
--     its expiry when it was looked at (-1: none)
--     its evidence: `name`; `text`, a SHA-1 and a length; `hash`, a SHA-1, a length, a count and
--     so many fields
--     its idle time in seconds and when that was asked, or two empty strings
--     a count and so many members to remove from indexes (each `set` or `zset`, and the member; the index is one
--     of KEYS); in front, where the count is not -1, the marker of a live session, which is one of KEYS too
-- Answers a number for each key (2 done, 1 changed, 0 gone); at an error its text, and nothing after it.

local DONE, CHANGED, GONE = 2, 1, 0

-- Redis before 5 replicates scripts, and takes no writes after TIME, unless told so.
if redis.replicate_commands then pcall(redis.replicate_commands) end

local at, key_at = 0, 0
local function argument() at = at + 1; return ARGV[at] end
local function number() return tonumber(argument()) end
local function a_key() key_at = key_at + 1; return KEYS[key_at] end
local function many(read)
  local all = {}
  for i = 1, number() do all[i] = read() end
  return all
end

local function call(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then error({text = reply.err}, 0) end
  return reply
end

local seven = argument() == '1'
local lines = many(argument)
local longest_s, since_s = number(), number()

local clock = call('TIME')
local now_s = tonumber(clock[1])
local now_ms = now_s * 1000 + math.floor(tonumber(clock[2]) / 1000)

local calm
local function no_fork_since()
  if calm == nil then
    local info = '\r\n' .. call('INFO', 'stats') .. '\r\n' .. call('INFO', 'cpu') .. '\r\n' ..
      call('INFO', 'persistence') .. '\r\n' .. call('INFO', 'replication')
    calm = #lines > 0
    for _, line in ipairs(lines) do
      if not info:find('\r\n' .. line .. '\r\n', 1, true) then calm = false end
    end
  end
  return calm
end

-- Milliseconds, or -1 for none and -2 for no key.
local function expiry(key)
  if seven then return call('PEXPIRETIME', key) end
  local left = call('PTTL', key)
  return left < 0 and left or now_ms + left
end

local function digest(key, evidence)
  if evidence.kind == 'text' then
    return redis.sha1hex(call('GETRANGE', key, '0', evidence.length))
  end
  -- One that has grown since is not read: the server stands still as long as that takes.
  local length = 0
  for _, field in ipairs(evidence.fields) do length = length + call('HSTRLEN', key, field) end
  if length ~= tonumber(evidence.length) then return nil end
  local joined = {}
  for _, value in ipairs(call('HMGET', key, unpack(evidence.fields))) do
    joined[#joined + 1] = value and (#value .. ':' .. value .. ';') or '-;'
  end
  return redis.sha1hex(table.concat(joined))
end

local function take_out(removal)
  local reply = redis.pcall(removal.from == 'set' and 'SREM' or 'ZREM', removal.key, removal.member)
  -- An index of another type is none of ours.
  if type(reply) == 'table' and reply.err and not reply.err:find('^WRONGTYPE') then
    error({text = reply.err}, 0)
  end
end

local function act(item)
  -- First, for what is read below may count as a use.
  if item.idle ~= '' then
    local idle = call('OBJECT', 'IDLETIME', item.key)
    if not idle then return GONE end
    local least = tonumber(item.idle) + (now_s - tonumber(item.idle_at)) - 1
    if idle < least or not no_fork_since() then return CHANGED end
    -- More than can be: the clock was set back, and the key was used just before.
    if idle > longest_s or idle > now_s - since_s or now_s < tonumber(item.idle_at) then return CHANGED end
  end
  local expires = expiry(item.key)
  if expires == -2 then return GONE end
  if item.expires == -1 then
    if expires ~= -1 then return CHANGED end
  -- PTTL and the clock are not asked at quite the same time.
  elseif expires == -1 or expires > item.expires + (seven and 0 or 1000) then
    return CHANGED
  end
  if item.evidence.kind ~= 'name' then
    local kind = item.evidence.kind == 'text' and 'string' or 'hash'
    if call('TYPE', item.key).ok ~= kind then return CHANGED end
    if digest(item.key, item.evidence) ~= item.evidence.sha1 then return CHANGED end
  end
  if item.what == 'expire' then
    -- A time that is past by now would delete it.
    if tonumber(item.time) <= now_ms then return CHANGED end
    -- It was shortened meanwhile, to less than this; before 7.0 there is no LT that would see to it.
    if item.expires ~= -1 and expires <= tonumber(item.time) then return CHANGED end
    local set
    if not seven then
      set = call('PEXPIREAT', item.key, item.time)
    elseif item.expires == -1 then
      set = call('PEXPIREAT', item.key, item.time, 'NX')
    else
      -- LT alone would give a TTL to a key without one.
      set = call('PEXPIREAT', item.key, item.time, 'XX', 'LT')
    end
    return set == 1 and DONE or CHANGED
  end
  if item.marker then
    if call('EXISTS', item.marker) == 1 then return CHANGED end
    -- Nothing is there to be removed: this only asks whether UNLINK is allowed, before the indexes change.
    call('UNLINK', item.marker)
    for _, removal in ipairs(item.removals) do take_out(removal) end
  end
  call('UNLINK', item.key)
  return DONE
end

local answers = {}
while at < #ARGV do
  local item = {key = a_key(), what = argument()}
  if item.what == 'expire' then item.time = argument() end
  item.expires = number()
  item.evidence = {kind = argument()}
  if item.evidence.kind ~= 'name' then item.evidence.sha1 = argument() end
  if item.evidence.kind ~= 'name' then item.evidence.length = argument() end
  if item.evidence.kind == 'hash' then item.evidence.fields = many(argument) end
  item.idle, item.idle_at = argument(), argument()
  local removals = number()
  if removals >= 0 then
    item.marker, item.removals = a_key(), {}
    for i = 1, removals do
      item.removals[i] = {key = a_key(), from = argument(), member = argument()}
    end
  end
  local fine, answer = pcall(act, item)
  if not fine then
    local text = type(answer) == 'table' and answer.text or tostring(answer)
    if text:find('^WRONGTYPE') then
      answer = CHANGED
    else
      answers[#answers + 1] = text
      return answers
    end
  end
  answers[#answers + 1] = answer
end
return answers
