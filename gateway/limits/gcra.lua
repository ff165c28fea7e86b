-- The twin of gcra.py: the same numbers, on Redis's clock. What it does and why is told there.
--
-- state {due, parts}; now, window, reset and retry_after in whole microseconds.
local function step(state, now, rate, window, burst)
  local most = burst * window
  local kept = state and (state[1] - now) * rate + state[2] or 0
  local ahead = math.min(math.max(kept, 0), most)
  local second = ahead + window
  if second > most then
    if not state or kept > most then
      local parts = math.fmod(ahead, rate)
      state = {now + (ahead - parts) / rate, parts}
    end
    return state, false, 0, math.ceil(ahead / rate), math.ceil((second - most) / rate)
  end
  local parts = math.fmod(second, rate)
  local due = now + (second - parts) / rate
  local remaining = math.floor((most - second) / window)
  local wait = remaining > 0 and 0 or math.ceil((second + window - most) / rate)
  return {due, parts}, true, remaining, math.ceil(second / rate), wait
end

return step
