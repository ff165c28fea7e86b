-- The twin of backoff.py: the same numbers, on Redis's clock. What it does and why is told there.
--
-- state {offences, since, wait}; all times in whole microseconds.
local function check(state, now)
  if not state or state[3] == 0 then
    return 0
  end
  return math.max(math.min(state[2] + state[3] - now, state[3]), 0)
end

local function offend(state, now, after, wait, longest, forget)
  local offences = 1
  if state and now - state[2] < forget then
    offences = state[1] + 1
  end
  if offences <= after then
    return {offences, now, 0}
  end
  return {offences, now, math.min(wait * 2 ^ math.min(offences - after - 1, 64), longest)}
end

return {check = check, offend = offend}
