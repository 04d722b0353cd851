-- charges: what every limit script is given (a time, and one argument per charge), and how states
-- are kept.
--
-- A charge is packed as '<BBddddd': algorithm (1 to 5, as in `makers`), shadow (0 or 1), cost,
-- amount, period, tick, volume. One argument instead of seven is what keeps a call cheap. A double
-- holds every whole number up to 2^53; the parameters are those of the Python twin.
--
-- Each algorithm is a function that makes a table of
--   read(key, charge)                        its state, nil for a key never seen
--   step(state, charge, now, cost)           the state after (the one before is not touched), then
--                                            allowed (1 or 0), remaining, reset, retry_after, delay
--   write(key, state, charge)                keeps a state
--   refund(state, charge, at, now)           the state without a charge of the time `at`

--@include whole
local format = string.format
local pack, unpack_values = struct.pack, struct.unpack

-- The server's clock decides, in µs since the epoch; tests give a time.
local given = NOW ~= ''
local now
if given then
  now = tonumber(NOW)
else
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function charge_of(text)
  local algorithm, shadow, cost, amount, period, tick, volume = unpack_values('<BBddddd', text)
  return {
    algorithm = algorithm, shadow = shadow == 1, cost = cost,
    amount = amount, period = period, tick = tick, volume = volume,
  }
end

-- Milliseconds to live for a state that is idle from `idle` on. One is added because the server
-- counts them from the millisecond that has begun: the key must not go before its time. A time
-- that was given is not the one that keys expire by, so they stay a minute longer.
local function lifetime(idle)
  local left = idle > now and up(idle - now, 1000) + 1 or 1
  return format('%.0f', given and left + 60000 or left)
end

local function keep(key, value, idle)
  redis.call('SET', key, value, 'PX', lifetime(idle))
end
