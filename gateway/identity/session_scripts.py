"""What `session_keys` has Redis do in one step each, in Lua.

Every change is given: KEYS of one user's slot (index, alive, users, revision, then records) and ARGV that tell of it
(channel, slot, whose, who, the beginning of every record's key, then its own). It answers `{revision, answer}`, or
`{0, 0}` where there was nothing to change. Times are milliseconds; lifetimes come from the caller, the time from Redis.

An index may name sessions that have expired meanwhile: whoever walks it takes them out.
"""

from __future__ import annotations

from gateway.store.redis import Script

REMEMBERED = 7 * 24 * 3600 * 1000
"""How long a revision is kept after the last change: a gateway that has seen it looks every second."""

_TIME = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_COMMON = (
    _TIME
    + """
local index, alive, users, revision = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local who, record = ARGV[4], ARGV[5]

local function head(seen, rested)
  return string.format('%014.0f%010.0f', seen, math.min(rested, 9999999999))
end

local function keep(key, ttl)  -- at least so long
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, string.format('%.0f', ttl)) end
end

local function living(digest, seen, idle, left, lag)
  local ends = math.min(seen + idle, now + left)
  local ttl = math.max(1, math.min(seen + idle + lag, now + left) - now)
  redis.call('PEXPIRE', record .. digest, string.format('%.0f', ttl))
  redis.call('ZADD', alive, string.format('%.0f', ends), digest)
  local last = redis.call('ZSCORE', users, who)
  if not last or tonumber(last) < ends then redis.call('ZADD', users, string.format('%.0f', ends), who) end
  keep(alive, left + lag)
  keep(users, left + lag)
end

local function listed(id, digest, created, generation, left, lag)
  redis.call('HSET', index, id, digest .. ' ' .. created .. ' ' .. generation)
  keep(index, left + lag)
end

local function drop(id, digest)
  redis.call('HDEL', index, id)
  redis.call('ZREM', alive, digest)
  return redis.call('DEL', record .. digest)
end

local function changed(answer)
  if redis.call('EXISTS', index) == 0 then redis.call('ZREM', users, who) end
  local number = redis.call('GET', revision)
  number = number and tonumber(number) + 1 or now
  number = string.format('%.0f', number)
  redis.call('SET', revision, number, 'PX', REMEMBERED)
  redis.call('PUBLISH', ARGV[1], ARGV[2] .. number .. ARGV[3])
  return {number, answer}
end

local function entries()
  local all, found = redis.call('HGETALL', index), {}
  for at = 1, #all, 2 do
    local digest, created, generation = string.match(all[at + 1], '^(%S+) (%d+) (%d+)$')
    if digest and redis.call('EXISTS', record .. digest) == 1 then
      found[#found + 1] = {all[at], digest, tonumber(created), tonumber(generation)}
    else
      drop(all[at], digest or '')
    end
  end
  return found
end
""".replace("REMEMBERED", str(REMEMBERED))
)

OPEN = Script(
    _COMMON
    + """
local sealed, digest, id, created, generation = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local most, refuse = tonumber(ARGV[11]), ARGV[12] == '1'
local idle, left, lag, replacing = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), ARGV[16]
local others, replaced, ended = {}, nil, {}
for _, entry in ipairs(entries()) do
  if entry[4] ~= tonumber(generation) then
    drop(entry[1], entry[2])
  elseif entry[2] == replacing then
    replaced = entry
  else
    others[#others + 1] = entry
  end
end
if refuse and #others >= most then return {0, 0} end
if replaced then
  drop(replaced[1], replaced[2])
  ended[1] = {replaced[1], 'replaced'}
end
table.sort(others, function(a, b)  -- the newest first
  if a[3] ~= b[3] then return a[3] > b[3] end
  return a[1] < b[1]
end)
for at = most, #others do
  drop(others[at][1], others[at][2])
  ended[#ended + 1] = {others[at][1], 'too_many'}
end
redis.call('SET', KEYS[5], head(now, 0) .. sealed)
living(digest, now, idle, left, lag)
listed(id, digest, created, generation, left, lag)
redis.call('ZREMRANGEBYSCORE', alive, '-inf', string.format('%.0f', now))
redis.call('ZREMRANGEBYSCORE', users, '-inf', string.format('%.0f', now))
return changed(ended)
"""
)

PROVE = Script(
    _COMMON
    + """
local expected, sealed, before, digest, id = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local idle, left, lag = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local value = redis.call('GET', KEYS[5])
if not value or string.sub(value, 25) ~= expected or left <= 0 then return {0, 0} end
drop(id, before)
redis.call('SET', KEYS[6], head(now, 0) .. sealed)
living(digest, now, idle, left, lag)
listed(id, digest, ARGV[11], ARGV[12], left, lag)
return changed(1)
"""
)

END = Script(
    _COMMON
    + """
local entry = redis.call('HGET', index, ARGV[6])
local digest = entry and string.match(entry, '^%S+') or ''
if not entry or drop(ARGV[6], digest) == 0 then return {0, 0} end
return changed(1)
"""
)

END_ALL = Script(
    _COMMON
    + """
local but, expected, sealed, generation = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local count = 0
for _, entry in ipairs(entries()) do
  local value = entry[1] == but and redis.call('GET', record .. entry[2])
  if value and string.sub(value, 25) == expected then
    redis.call('SET', record .. entry[2], string.sub(value, 1, 24) .. sealed, 'KEEPTTL')
    redis.call('HSET', index, but, entry[2] .. ' ' .. string.format('%.0f', entry[3]) .. ' ' .. generation)
  else
    count = count + drop(entry[1], entry[2])
  end
end
return changed(count)
"""
)

FIND = Script(_TIME + "return {now, redis.call('GET', KEYS[1])}")
"""A record's key → the time, its value."""

AGAIN = Script(
    _TIME
    + """
local entry = redis.call('HGET', KEYS[1], ARGV[2])
local digest = entry and string.match(entry, '^%S+')
if not digest then return {now, '', ''} end
return {now, digest, redis.call('GET', ARGV[1] .. digest)}
"""
)
"""An index, the beginning of records' keys, a session's id → the time, the digest or nothing, its value."""

LIST = Script(
    _TIME
    + """
local answer, all = {now}, redis.call('HGETALL', KEYS[1])
for at = 2, #all, 2 do
  local digest = string.match(all[at], '^%S+')
  local value = digest and redis.call('GET', ARGV[1] .. digest)
  if value then
    answer[#answer + 1] = digest
    answer[#answer + 1] = value
  end
end
return answer
"""
)
"""An index, the beginning of records' keys → the time, then digest and value of each session."""

TOUCH = Script(
    _TIME
    + """
local there = 0
for at = 3, #KEYS do
  local first = (at - 3) * 7
  local ago, rested, idle = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3])
  local left, lag, digest, who = tonumber(ARGV[first + 4]), tonumber(ARGV[first + 5]), ARGV[first + 6], ARGV[first + 7]
  local was = redis.call('GETRANGE', KEYS[at], 0, 23)
  if string.match(was, '^%d+$') and #was == 24 then
    there = there + 1
    local seen = math.max(math.min(now, tonumber(string.sub(was, 1, 14))), now - ago)
    rested = math.min(math.max(rested, tonumber(string.sub(was, 15))), 9999999999)
    redis.call('SETRANGE', KEYS[at], 0, string.format('%014.0f%010.0f', seen, rested))
    local ends = string.format('%.0f', math.min(seen + idle, now + left))
    local ttl = math.max(1, math.min(seen + idle + lag, now + left) - now)
    redis.call('PEXPIRE', KEYS[at], string.format('%.0f', ttl))
    redis.call('ZADD', KEYS[1], 'XX', ends, digest)
    local last = redis.call('ZSCORE', KEYS[2], who)
    if last and tonumber(last) < tonumber(ends) then redis.call('ZADD', KEYS[2], ends, who) end
  end
end
return {now, there}
"""
)
"""Of one slot: alive, users, records; seven ARGV for each record → the time, how many were there."""

COUNT = Script(
    _TIME
    + """
local from = '(' .. string.format('%.0f', now)
return {redis.call('ZCOUNT', KEYS[1], from, '+inf'), redis.call('ZCOUNT', KEYS[2], from, '+inf')}
"""
)
"""Alive, users → how many of each."""
