-- The twin of token_bucket.py: the same numbers, on Redis's clock. What it does and why is told there.
--
-- state {debt, moment}; now, window, reset and retry_after in whole microseconds.
local function step(state, now, rate, window, burst)
  local most = burst * window
  local debt = 0
  if state then
    debt = math.max(state[1] - (now - state[2]) * rate, 0)
    if now < state[2] then
      debt = math.min(debt, most)
    end
  end
  local after = debt + window
  if after > most then
    if not state or now < state[2] then
      state = {debt, now}
    end
    return state, false, 0, math.ceil(debt / rate), math.ceil((after - most) / rate)
  end
  local remaining = math.floor((most - after) / window)
  local wait = remaining > 0 and 0 or math.ceil((after + window - most) / rate)
  return {after, now}, true, remaining, math.ceil(after / rate), wait
end

return step
