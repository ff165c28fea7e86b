-- How counters stand, by this server's clock. Writes nothing.
--
-- KEYS      the counters
-- ARGV[1]   JSON: `l`, limits as `spend.lua` reads them; `q`, for each counter the number of its limit, from 1
--
-- Answers a flat list, for each counter: 1 where it is there; 1 where the next request would be let through; how many
-- would be now; us until it is whole again; us until one is let through; how many offences are remembered; us that are
-- waited for these.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local asked = cjson.decode(ARGV[1])
local kept = redis.call('MGET', unpack(KEYS))
local answer = {}

-- A step tells when a counter is whole again after one more request. As it stands: what is refused changes nothing; a
-- bucket owes one request less; a window of which one request is the limit refuses while anything is in it.
local function whole(limit, state, allowed, reset)
  if not allowed then
    return reset
  end
  if limit[1] == 'token_bucket' or limit[1] == 'gcra' then
    return math.max(reset - math.ceil(limit[3] / limit[2]), 0)
  end
  local _, empty, _, last = steps[limit[1]](state, now, 1, limit[3], limit[4])
  return empty and 0 or last
end

for number = 1, #KEYS do
  local limit = asked.l[asked.q[number]]
  local state, offence
  if kept[number] then
    local packed = cmsgpack.unpack(kept[number])
    local size = packed[1]
    if size > 0 then
      state = {}
      for place = 1, size do
        state[place] = packed[place + 1]
      end
    end
    if #packed > size + 1 then
      offence = {}
      for place = size + 2, #packed do
        offence[place - size - 1] = packed[place]
      end
    end
  end
  local _, allowed, remaining, reset, retry = steps[limit[1]](state, now, limit[2], limit[3], limit[4])
  reset = whole(limit, state, allowed, reset)
  remaining = allowed and remaining + 1 or 0
  local wait = limit[7] and backoff.check(offence, now) or 0
  if wait > 0 then
    retry = allowed and wait or math.max(retry, wait)
    allowed, remaining, reset = false, 0, math.max(reset, wait)
  end
  local offences = offence and limit[10] and now - offence[2] < limit[10] and offence[1] or 0
  local at = #answer
  answer[at + 1], answer[at + 2], answer[at + 3] = kept[number] and 1 or 0, allowed and 1 or 0, remaining
  answer[at + 4], answer[at + 5], answer[at + 6], answer[at + 7] = reset, allowed and 0 or retry, offences, wait
end
return answer
