-- Lends a share of one limit to one replica, by this server's clock.
--
-- KEYS[1]   the counter
-- ARGV      algorithm, rate, window in us, burst, how many are wanted
--
-- Answers {how many were lent, how many remain, us until it is whole again, us until one could be lent}. The nearer the
-- end, the smaller the shares: never more than a quarter of what is left, so that no replica sits on what another needs.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local step = steps[ARGV[1]]
local rate, window, burst, wanted = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local kept = redis.call('GET', KEYS[1])
local state
if kept then
  local packed = cmsgpack.unpack(kept)
  state = {}
  for place = 1, packed[1] do
    state[place] = packed[place + 1]
  end
end

local lent, most, mended = 0, 1, false
local remaining, reset, retry
while lent < most do
  local after, allowed, now_remaining, now_reset, now_retry = step(state, now, rate, window, burst)
  remaining, reset, retry = now_remaining, now_reset, now_retry
  if not allowed then
    mended = after ~= state -- the clock was set back
    state = after
    break
  end
  state, lent = after, lent + 1
  if lent == 1 then
    most = math.max(1, math.min(wanted, math.floor((remaining + 1) / 4)))
  end
end

if lent > 0 or mended then
  local packed = { #state }
  for place = 1, #state do
    packed[place + 1] = state[place]
  end
  redis.call('SET', KEYS[1], cmsgpack.pack(packed), 'PX', math.ceil(reset / 1000) + 1000)
end
return { lent, remaining, reset, retry }
