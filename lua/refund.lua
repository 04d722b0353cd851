-- Gives back what a request was charged in this slot, because limits in another slot refused it.
--
-- KEYS     1+  the state of each charge, in order; all in one slot
-- ARGV     1   packed as include/charges.lua says: for an order, the time in µs of the charge, as
--              admit.lua returned it; now, µs since the epoch, or -1 for the server's clock; the
--              charges as admit.lua had them
-- RETURNS  what admit.lua returns for a refused request: each charge as it is, uncharged
-- O(charges); a sliding_log adds O(N)
--
-- Gives back what the charge still weighs, and never more, so nobody is admitted beyond the limit. A
-- leaky_bucket cannot be refunded and stays charged.

local PACKED = ARGV[1]

--@include algorithms

local charged = order
local answer = pack('<d', now)
local next_charge = first_charge

for place = 1, #KEYS do
  local key = KEYS[place]
  local number, _, cost, amount, period, tick, volume
  number, _, cost, amount, period, tick, volume, next_charge =
    unpack_values('<BBddddd', PACKED, next_charge)
  local step, refund = algorithm_of(number)
  local text, given_back
  if refund and cost > 0 then
    text = call('GET', key)
    given_back = text and refund(text, charged, now, cost, amount, period, tick, volume)
  end
  local remaining, reset, _, _, idle =
    step(key, given_back or nil, now, 0, amount, period, tick, volume, number)
  if given_back == '' then
    call('DEL', key)
  elseif given_back ~= text then
    keep(key, given_back, idle)
  end
  answer = answer .. pack('<ddd', remaining, reset, 0)
end

return answer
