-- fixed_window: N units in each window; windows begin at multiples of the period since the epoch.
-- The twin of proxy/core/limits/fixed_window.py.
--
-- State: {end, used}, a string of two doubles. `end` is in µs. A period of 0 is a calendar month.

local function fixed_window()
  local DAY = 86400000000
  local MARCH_0000 = 719468      -- days from 0000-03-01, where dates are counted from, to 1970
  local DAYS_IN_400_YEARS = 146097

  local function first_day(year)
    return 365 * year + down(year, 4) - down(year, 100) + down(year, 400)
  end

  local function month_end(at)
    local day = down(at, DAY) + MARCH_0000
    -- Years of the mean length are at most one or two ahead of the real ones.
    local year = down(day * 400, DAYS_IN_400_YEARS) + 1
    while first_day(year) > day do
      year = year - 1
    end
    local month = down(5 * (day - first_day(year)) + 2, 153)  -- 0 is March
    local following
    if month == 11 then
      following = first_day(year + 1)
    else
      following = first_day(year) + down(153 * (month + 1) + 2, 5)
    end
    return (following - MARCH_0000) * DAY
  end

  local function window_end(charge, at)
    local period = charge.period
    if period == 0 then
      return month_end(at)
    end
    return at - at % period + period
  end

  local function read(key)
    local text = redis.call('GET', key)
    return text and {unpack_values('<dd', text)}
  end

  local function step(state, charge, at, cost)
    local amount = charge.amount
    local ends, used
    if state and at < state[1] then
      ends, used = state[1], state[2]
    else
      ends, used = window_end(charge, at), 0
    end
    if cost > 0 and used + cost > amount then
      return state, 0, 0, ends - at, ends - at, 0
    end
    used = used + cost
    local left = used < amount and amount - used or 0
    return {ends, used}, 1, left, used > 0 and ends - at or 0, 0, 0
  end

  local function write(key, state)
    keep(key, pack('<dd', state[1], state[2]), state[1])
  end

  -- Only where the window that was charged is still the one that counts.
  local function refund(state, charge, at)
    if state[1] ~= window_end(charge, at) then
      return state
    end
    return {state[1], max(0, state[2] - charge.cost)}
  end

  return {read = read, step = step, write = write, refund = refund}
end
