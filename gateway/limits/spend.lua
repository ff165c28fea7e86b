-- Counts many requests against their limits in one step, by this server's clock.
--
-- KEYS      every counter that is asked for, once
-- ARGV[1]   JSON: `l`, the limits as {algorithm, rate, window in us, burst, shadow, whole, after, wait, longest, forget}
--           (whole: 1, or 0 where it has shrunk; the last four of its backoff, in us, left out without one);
--           `q`, the requests, each a flat list of {limit, key, limit, key, ...} counted from 1
--
-- Answers a flat list: for each limit of each request 1 where it lets the request through, 0 where it refuses, 2 where
-- it refuses and nothing else is to be expected until it would let one through; how many remain; us until it is whole
-- again; us until it would let one through.
--
-- A request is counted by every limit of its list or, where one refuses, by none; shadow limits count by themselves.
-- The same walk in Python is `limiter.Limiter`. A counter is kept as one packed list: how many numbers its algorithm
-- has, these, and those of its backoff. A refusal that is no offence writes nothing, unless the clock was set back.
-- A limit that has shrunk does not mend that: to it, what was used of the whole looks like a clock set back.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local asked = cjson.decode(ARGV[1])
local limits = asked.l
local kept = redis.call('MGET', unpack(KEYS))
local states, offences, lasts, mended = {}, {}, {}, {}
local answer, at = {}, 0

for number = 1, #KEYS do
  if kept[number] then
    local packed = cmsgpack.unpack(kept[number])
    local size, state, offence = packed[1], {}, nil
    for place = 1, size do
      state[place] = packed[place + 1]
    end
    if #packed > size + 1 then
      offence = {}
      for place = size + 2, #packed do
        offence[place - size - 1] = packed[place]
      end
    end
    states[number], offences[number] = size > 0 and state or nil, offence
  end
end

for _, request in ipairs(asked.q) do
  local after, allowed, remaining, reset, retry, waits = {}, {}, {}, {}, {}, {}
  local granted, count = true, 0
  for place = 1, #request, 2 do
    local limit, key = limits[request[place]], request[place + 1]
    count = count + 1
    after[count], allowed[count], remaining[count], reset[count], retry[count] =
      steps[limit[1]](states[key], now, limit[2], limit[3], limit[4])
    if limit[7] then
      local offence = offences[key]
      if offence and offence[2] > now then -- the clock was set back: nobody waits for what it was set back by
        offences[key], mended[key] = { offence[1], now, offence[3] }, true
      end
      local wait = backoff.check(offences[key], now)
      if wait > 0 then
        retry[count] = allowed[count] and wait or math.max(retry[count], wait)
        waits[count], allowed[count], remaining[count], reset[count] = true, false, 0, math.max(reset[count], wait)
      end
    end
    if not allowed[count] and limit[5] == 0 then
      granted = false
    end
  end
  count = 0
  for place = 1, #request, 2 do
    local limit, key = limits[request[place]], request[place + 1]
    local shadow, said = limit[5] == 1, 1
    count = count + 1
    if allowed[count] and (granted or shadow) then
      states[key], lasts[key] = after[count], reset[count]
    elseif allowed[count] then -- given back
      remaining[count], retry[count] = remaining[count] + 1, 0
    elseif waits[count] then
      said = 2
      if mended[key] then
        lasts[key] = reset[count]
      end
    else
      if after[count] ~= states[key] and limit[6] == 1 then
        states[key], lasts[key] = after[count], reset[count]
      end
      said = 2
      if limit[7] then
        said = 0
        offences[key] = backoff.offend(offences[key], now, limit[7], limit[8], limit[9], limit[10])
        lasts[key] = reset[count]
        local wait = backoff.check(offences[key], now)
        reset[count], retry[count] = math.max(reset[count], wait), math.max(retry[count], wait)
      end
    end
    if lasts[key] and offences[key] then
      lasts[key] = math.max(lasts[key], limit[10])
    end
    answer[at + 1], answer[at + 2], answer[at + 3], answer[at + 4] = said, remaining[count], reset[count], retry[count]
    at = at + 4
  end
end

for key, last in pairs(lasts) do
  local state, offence = states[key] or {}, offences[key] or {}
  local packed = { #state }
  for place = 1, #state do
    packed[place + 1] = state[place]
  end
  for place = 1, #offence do
    packed[#state + 1 + place] = offence[place]
  end
  redis.call('SET', KEYS[key], cmsgpack.pack(packed), 'PX', math.ceil(last / 1000) + 1000)
end
return answer
