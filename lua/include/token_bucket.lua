-- token_bucket: a bucket of `burst` units that refills at N per period, evenly and all the time.
-- The twin of proxy/core/limits/token_bucket.py.
--
-- State: {debt, last}, a string of two doubles: what is missing from a full bucket, in units of
-- 1/period, at the tick `last`.

local function token_bucket(key, state, time, cost, amount, period, tick, volume)
  state = state or call('GET', key)
  local at = (time - time % tick) / tick
  local debt = 0
  if state then
    local last
    debt, last = unpack_values('<dd', state)
    if debt > volume then
      debt = volume
    end
    if at > last then
      -- The one product that may pass 2^53. It is rounded then, and yet no less than any debt.
      debt = debt - (at - last) * amount
      if debt < 0 then
        debt = 0
      end
    elseif at < last then
      at, time = last, last * tick
    end
  end
  local room = volume - cost * period
  if debt > room then
    local rest, lack = period - (volume - debt) % period, debt - room
    return -1, (at + (rest + -rest % amount) / amount) * tick - time,
      (at + (lack + -lack % amount) / amount) * tick - time
  end
  local owed = debt + cost * period
  local part = (volume - owed) % period
  local left = (volume - owed - part) / period
  local rest, reset = period - part, 0
  if owed > 0 then
    reset = (at + (rest + -rest % amount) / amount) * tick - time
  end
  local idle = (at + (owed + -owed % amount) / amount) * tick
  return left, reset, 0, cost > 0 and pack('<dd', owed, at) or nil, idle
end

-- What time has paid off since the charge is not given back: it may have been spent by others.
local function refund(text, charged, now, cost, amount, period, tick, volume)
  local debt, last = unpack_values('<dd', text)
  local at, since = (now - now % tick) / tick, (charged - charged % tick) / tick
  local elapsed = (at > last and at or last) - since
  if elapsed >= (volume + -volume % amount) / amount then
    return text
  end
  local owed = cost * period - elapsed * amount
  if owed < 0 then
    return text
  end
  return pack('<dd', debt > owed and debt - owed or 0, last)
end
