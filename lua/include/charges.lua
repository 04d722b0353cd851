-- charges: what every limit script is given (a time, and the charges), and how states are kept.
--
-- All of it is packed into one argument: '<dd', an order and `now`; then '<BBddddd' for a charge,
-- its algorithm (1 to 6, as in algorithm_of), shadow (0 or 1), cost, amount, period, tick, volume.
-- A double holds every whole number up to 2^53; the parameters are those of the Python twin.
--
-- Everything here runs anew in every call, where making a function or a table, or calling one of
-- Lua's own, takes as long as a good part of a step. So there are few of each, a charge goes from
-- function to function as plain numbers, and quotients of whole numbers are written out:
-- (a - a % b) / b is a/b rounded down, and (a + -a % b) / b is it rounded up, where that times b is
-- at most 2^53. They are exact though Lua 5.1 counts in doubles, and a % b in floor(a / b): where
-- a/b is not whole, it is 1/b or more away from every whole number k beside it, and rounding moves
-- it by k/2^53 at most, which is never as far as k.

local call = redis.call
local pack, unpack_values = struct.pack, struct.unpack

-- The place of the first charge is where the next value of a packed text would be.
local order, now, first_charge = unpack_values('<dd', PACKED)

-- The server's clock decides, in µs since the epoch; tests give a time. That is not the one that
-- keys expire by, so they stay a minute longer.
local longer = 60000
if now < 0 then
  local time = call('TIME')
  now, longer = time[1] * 1000000 + time[2], 0
end

-- Keeps a state until the time `idle`, in milliseconds to live. One is added because the server
-- counts them from the millisecond that has begun: the key must not go before its time.
local function keep(key, state, idle)
  local left = idle > now and idle - now or 0
  left = (left + -left % 1000) / 1000 + 1 + longer
  if state.write then  -- none is in a text
    state.write(key, left)
  else
    -- The server writes a number with all of its digits.
    call('SET', key, state, 'PX', left)
  end
end
