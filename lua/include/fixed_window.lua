-- fixed_window: N units in each window; windows begin at multiples of the period since the epoch.
-- The twin of proxy/core/limits/fixed_window.py.
--
-- State: {end, used}, a string of two doubles. `end` is in µs. A period of 0 is a calendar month.

local function month_end(at)
  local DAY = 86400000000
  local MARCH_0000 = 719468      -- days from 0000-03-01, where dates are counted from, to 1970
  local DAYS_IN_400_YEARS = 146097

  local function down(a, b)
    return (a - a % b) / b
  end

  local function first_day(year)
    return 365 * year + down(year, 4) - down(year, 100) + down(year, 400)
  end

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

local function fixed_window(key, state, now, cost, amount, period)
  state = state or call('GET', key)
  local ends, used
  if state then
    ends, used = unpack_values('<dd', state)
  end
  if not ends or now >= ends or ends - now > 2 * (period > 0 and period or 2678400000000) then
    ends, used = period > 0 and now - now % period + period or month_end(now), 0
  end
  local left = ends - now
  if cost > 0 then
    used = used + cost
    if used > amount then
      return -1, left, left
    end
    return amount - used, left, 0, pack('<dd', ends, used), ends
  end
  return used < amount and amount - used or 0, used > 0 and left or 0, 0, nil, ends
end

-- Only where the window that was charged is still the one that counts.
local function refund(text, charged, _, cost, _, period)
  local ends, used = unpack_values('<dd', text)
  if ends ~= (period > 0 and charged - charged % period + period or month_end(charged)) then
    return text
  end
  return pack('<dd', ends, used > cost and used - cost or 0)
end
