-- The twin of fixed_window.py: the same numbers, on Redis's clock. What it does and why is told there.
--
-- state {begin, count}; now, window, reset and retry_after in whole microseconds.
local function step(state, now, rate, window, burst)
  local begin = now - math.fmod(now, window)
  local count = 0
  if state and state[1] >= begin then
    count = state[2]
  end
  local left = begin + window - now
  if count >= rate then
    if state[1] ~= begin then
      state = {begin, count}
    end
    return state, false, 0, left, left
  end
  count = count + 1
  local remaining = rate - count
  return {begin, count}, true, remaining, left, remaining > 0 and 0 or left
end

return step
