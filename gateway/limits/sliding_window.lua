-- The twin of sliding_window.py: the same numbers, on Redis's clock. What it does and why is told there.
--
-- state {total, open, time, count, time, count, …}; now, window, reset and retry_after in whole microseconds.
local CELLS = 16

local function step(state, now, rate, window, burst)
  if not state then
    state = {0, 0}
  elseif state[#state - 1] > now then
    state = {state[1], now, now, state[1]}
  end
  local total, open = state[1], state[2]
  local first = 3
  while first < #state and state[first] <= now - window do
    total = total - state[first + 1]
    first = first + 2
  end
  if total >= rate then
    local last, left = first, total - state[first + 1]
    while left >= rate do
      last = last + 2
      left = left - state[last + 1]
    end
    return state, false, 0, state[#state - 1] + window - now, state[last] + window - now
  end
  total = total + 1
  local after = {total, open}
  for at = first, #state do
    after[#after + 1] = state[at]
  end
  if now < open and #after > 2 then
    after[#after - 1] = now
    after[#after] = after[#after] + 1
  else
    after[2] = rate > CELLS and now + window / CELLS or now
    after[#after + 1] = now
    after[#after + 1] = 1
  end
  return after, true, rate - total, window, total >= rate and after[3] + window - now or 0
end

return step
