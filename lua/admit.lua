-- Checks every limit of a request, then charges all of them or none.
--
-- KEYS     1+  the state of each charge, in order; all in one slot
-- ARGV     1   packed as include/charges.lua says: an order, 1 to charge, 2 to peek (answers as 1
--              does, charges nothing) or 3 for refused (another limit has refused: charges nothing,
--              and answers so); now, µs since the epoch, or -1 for the server's clock; the charges
-- RETURNS  packed as '<d' now, then '<ddd' for each charge: remaining, or -1 where it is denied;
--          reset; wait, which is retry_after of a denied one and else delay (times in µs from now)
-- O(charges); a sliding_log adds O(log N), its cost, and a copy of its units now and then
--
-- A charge sees those before it in the same request. Shadow charges block nothing, and are charged
-- only if every other charge is allowed. A refused request's other limits answer as they are,
-- uncharged. All is read before anything is written, so an error charges nothing.

local PACKED = ARGV[1]
local CHARGE, REFUSED = 1, 3

--@include algorithms

local count = #KEYS
local refused = order == REFUSED
-- One charge needs nothing of what holds several together.
local alone = count == 1 and not refused
-- By key the state that it is to have, by place when that will be idle. There is room for two at
-- once: to grow takes longer than to be made.
local pending = not alone and {false, false, [KEYS[1]] = false, [KEYS[2] or 0] = false}
local answer = not alone and pack('<d', now)
local algorithm, step
local next_charge = first_charge

for place = 1, count do
  local key = KEYS[place]
  local number, shadow, cost, amount, period, tick, volume
  number, shadow, cost, amount, period, tick, volume, next_charge =
    unpack_values('<BBddddd', PACKED, next_charge)
  if number ~= algorithm then
    algorithm, step = number, algorithm_of(number)
  end
  local remaining, reset, wait, state, idle =
    step(key, pending and pending[key] or nil, now, cost, amount, period, tick, volume, number)
  if alone then
    if state and order == CHARGE then
      keep(key, state, idle)
    end
    return pack('<dddd', now, remaining, reset, wait)
  end
  answer = answer .. pack('<ddd', remaining, reset, wait)
  if remaining < 0 then
    refused = refused or shadow == 0
  elseif state then
    pending[key], pending[place] = state, idle
  end
end

if refused then
  local answered, last = answer, 8
  answer = pack('<d', now)
  next_charge = first_charge
  for place = 1, count do
    local number, _, _, amount, period, tick, volume
    number, _, _, amount, period, tick, volume, next_charge =
      unpack_values('<BBddddd', PACKED, next_charge)
    local told = string.sub(answered, last + 1, last + 24)
    last = last + 24
    if unpack_values('<d', told) >= 0 then
      local remaining, reset =
        algorithm_of(number)(KEYS[place], nil, now, 0, amount, period, tick, volume)
      told = pack('<ddd', remaining, reset, 0)
    end
    answer = answer .. told
  end
elseif order == CHARGE then
  for place = count, 1, -1 do  -- a key's last charge is the one to be kept
    local key = KEYS[place]
    if pending[place] and pending[key] then
      keep(key, pending[key], pending[place])
      pending[key] = false
    end
  end
end

return answer
