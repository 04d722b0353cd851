-- All bans: purges of a prefix, or of everything.
--
-- KEYS     2   the purges' numbers; the bans
-- ARGV     1   the lowest number that may be given out for a purge
-- RETURNS  born, last, bans, then each ban ('h' for hard, 's' for soft, 'p' for the soft one before
--          that, and its prefix) and its number
-- O(bans), 257 at most

local LEAST = tonumber(ARGV[1])

--@include cache_numbers

local state = read_state(KEYS[1], LEAST)
local bans = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
if #bans == 0 and state.bans > state.born then
  -- They are lost: nothing that was stored before is known to be untouched.
  redis.call('DEL', KEYS[1])
  state = read_state(KEYS[1], math.max(LEAST, state.last + 1))
end
local answer = {state.born, state.last, state.bans}
for place = 1, #bans, 2 do
  answer[#answer + 1] = bans[place]
  answer[#answer + 1] = tonumber(bans[place + 1])
end
return answer
