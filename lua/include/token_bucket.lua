-- token_bucket: a bucket of `burst` units that refills at N per period, evenly and all the time.
-- The twin of proxy/core/limits/token_bucket.py.
--
-- State: {debt, last}, a string of two doubles: what is missing from a full bucket, in units of
-- 1/period, at the tick `last`.

local function token_bucket()
  local function read(key)
    local text = redis.call('GET', key)
    return text and {unpack_values('<dd', text)}
  end

  local function step(state, charge, time, cost)
    local amount, period, tick, volume = charge.amount, charge.period, charge.tick, charge.volume
    local at = down(time, tick)
    local debt = 0
    if state then
      local last = state[2]
      debt = min(state[1], volume)
      if at > last then
        -- Cut before it is multiplied: time enough for a full bucket needs no product.
        local elapsed = at - last
        debt = elapsed < up(volume, amount) and max(0, debt - elapsed * amount) or 0
      elseif at < last then
        at, time = last, last * tick
      end
    end
    local room = volume - cost * period
    if debt > room then
      local level = volume - debt
      local target = (down(level, period) + 1) * period
      local reset = (at + up(target - level, amount)) * tick - time
      local retry = (at + up(debt - room, amount)) * tick - time
      return state, 0, 0, reset, retry, 0
    end
    debt = debt + cost * period
    local part = (volume - debt) % period
    local left = (volume - debt - part) / period
    local reset = debt > 0 and (at + up(period - part, amount)) * tick - time or 0
    return {debt, at}, 1, left, reset, 0, 0
  end

  local function write(key, state, charge)
    local idle = (state[2] + up(min(state[1], charge.volume), charge.amount)) * charge.tick
    keep(key, pack('<dd', state[1], state[2]), idle)
  end

  -- What time has paid off since the charge is not given back: it may have been spent by others.
  local function refund(state, charge, charged, time)
    local debt, last = state[1], state[2]
    local elapsed = max(down(time, charge.tick), last) - down(charged, charge.tick)
    if elapsed >= up(charge.volume, charge.amount) then
      return state
    end
    local owed = charge.cost * charge.period - elapsed * charge.amount
    return {debt - min(debt, max(0, owed)), last}
  end

  return {read = read, step = step, write = write, refund = refund}
end
