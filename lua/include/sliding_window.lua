-- sliding_window: the last window's count fades out while this window's count grows.
-- The twin of proxy/core/limits/sliding_window.py.
--
-- State: {start, previous, current}, a string of three doubles. `start` is in ticks.

local function sliding_window()
  -- The first tick at which `units` fit, if nothing is charged meanwhile; they do not fit yet.
  local function free_at(start, previous, current, charge, units)
    local amount, period = charge.amount, charge.period
    local spare = amount - current - units
    if previous > 0 and spare >= 0 then
      return start + period - down(spare * period, previous)
    end
    -- Not in this window, as what it counted itself stays: in the next, where that fades.
    local fading = period - down((amount - units) * period, current)
    return start + period + max(0, fading)
  end

  local function read(key)
    local text = redis.call('GET', key)
    return text and {unpack_values('<ddd', text)}
  end

  local function step(state, charge, time, cost)
    local amount, period, tick = charge.amount, charge.period, charge.tick
    local at = down(time, tick)
    local start = at - at % period
    local previous, current = 0, 0
    if state then
      local begun = state[1]
      if start <= begun then
        if at < begun then
          at, time = begun, begun * tick
        end
        start = begun
        previous, current = min(state[2], amount), min(state[3], amount)
      elseif start == begun + period then
        previous = min(state[3], amount)
      end
    end
    local free = amount - current - up(previous * (start + period - at), period)
    if cost > 0 and cost > free then
      local units = free > 0 and free + 1 or 1
      local reset = free_at(start, previous, current, charge, units) * tick - time
      local retry = free_at(start, previous, current, charge, cost) * tick - time
      return state, 0, 0, reset, retry, 0
    end
    current = current + cost
    local left = free > cost and free - cost or 0
    local reset = 0
    if left < amount then
      reset = free_at(start, previous, current, charge, left + 1) * tick - time
    end
    return {start, previous, current}, 1, left, reset, 0, 0
  end

  local function write(key, state, charge)
    local windows = state[3] > 0 and 2 or 1
    local idle = (state[1] + charge.period * windows) * charge.tick
    keep(key, pack('<ddd', state[1], state[2], state[3]), idle)
  end

  -- Only where the window that was charged is still the current one: what another window lost by
  -- rounding and cutting cannot be told apart.
  local function refund(state, charge, time)
    local at = down(time, charge.tick)
    if state[1] ~= at - at % charge.period then
      return state
    end
    return {state[1], state[2], max(0, state[3] - charge.cost)}
  end

  return {read = read, step = step, write = write, refund = refund}
end
