-- Gives back what a request was charged in this slot, because limits in another slot refused it.
--
-- KEYS     1+              the state of each charge, in order; all in one slot
-- ARGV     2 + 1 per key   now: µs since the epoch, or empty for the server's clock;
--                          charged: the time, in µs, that admit.lua returned;
--                          then each charge as it was given to admit.lua
-- RETURNS  what admit.lua returns for a refused request: each charge as it is, uncharged
-- O(charges); a sliding_log adds O(N)
--
-- Never gives back more than the charge still weighs, so nobody is admitted beyond the limit.
-- What cannot be told apart any more (a window that has ended since) and every leaky_bucket, which
-- cannot be refunded, stays charged.

local NOW, CHARGED = ARGV[1], ARGV[2]
local CHARGES = 2

--@include algorithms

local charged = tonumber(CHARGED)
local answer = {}

for place, key in ipairs(KEYS) do
  local charge = charge_of(ARGV[CHARGES + place])
  local algorithm = algorithm_of(charge)
  local state = algorithm.read(key, charge)
  if state and algorithm.refund and charge.cost > 0 then
    state = algorithm.refund(state, charge, charged, now)
    algorithm.write(key, state, charge)
  end
  local _, allowed, remaining, reset = algorithm.step(state, charge, now, 0)
  local base = 5 * place - 5
  answer[base + 1] = allowed
  answer[base + 2] = remaining
  answer[base + 3] = reset
  answer[base + 4] = 0
  answer[base + 5] = 0
end

answer[5 * #KEYS + 1] = now
return answer
