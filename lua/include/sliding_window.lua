-- sliding_window: the last window's count fades out while this window's count grows.
-- The twin of proxy/core/limits/sliding_window.py.
--
-- State: {start, previous, current}, a string of three doubles. `start` is in ticks.

-- The first tick at which `units` fit, if nothing is charged meanwhile; they do not fit yet.
local function free_at(start, previous, current, amount, period, units)
  local spare = (amount - current - units) * period
  if previous > 0 and spare >= 0 then
    return start + period - (spare - spare % previous) / previous
  end
  -- Not in this window, as what it counted itself stays: in the next, where that fades.
  spare = (amount - units) * period
  local fading = period - (spare - spare % current) / current
  return start + period + (fading > 0 and fading or 0)
end

local function sliding_window(key, state, time, cost, amount, period, tick)
  state = state or call('GET', key)
  local at = (time - time % tick) / tick
  local start = at - at % period
  local before, count = 0, 0
  if state then
    local begun
    begun, before, count = unpack_values('<ddd', state)
    if start ~= begun then
      if start < begun and begun - at <= period then
        start, at, time = begun, begun, begun * tick
      else
        before, count = start == begun + period and count or 0, 0
      end
    end
  end
  local previous = before < amount and before or amount
  local current = count < amount and count or amount
  local weight = previous * (start + period - at)
  local free = amount - current - (weight + -weight % period) / period
  if cost > 0 and cost > free then
    local units = free > 0 and free + 1 or 1
    return -1, free_at(start, previous, current, amount, period, units) * tick - time,
      free_at(start, previous, current, amount, period, cost) * tick - time
  end
  current = current + cost
  local left = free > cost and free - cost or 0
  local reset = 0
  if left < amount then
    reset = free_at(start, previous, current, amount, period, left + 1) * tick - time
  end
  local idle = (start + period * (current > 0 and 2 or 1)) * tick
  return left, reset, 0, cost > 0 and pack('<ddd', start, before, count + cost) or nil, idle
end

-- The window that was charged is the current one or the last one, or weighs nothing any more.
local function refund(text, charged, _, cost, _, period, tick)
  local start, previous, current = unpack_values('<ddd', text)
  local at = (charged - charged % tick) / tick
  at = at - at % period
  if at == start then
    current = current > cost and current - cost or 0
  elseif at + period == start then
    previous = previous > cost and previous - cost or 0
  else
    return text
  end
  return pack('<ddd', start, previous, current)
end
