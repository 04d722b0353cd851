-- token_bucket: a bucket of `burst` units that refills at N per period, evenly and all the time.
-- The twin of proxy/core/limits/token_bucket.py.
--
-- State: {debt, last, low, end, least, floor, …}, a string of doubles: what is missing from a full
-- bucket, in units of 1/period, at the tick `last`; then the stretches of charges between the debt's
-- minima, four doubles each, 16 at most. Where there are none, {last, last, 0, 0} is the only one.

-- Only a bucket whose charges may be given back (number 4) keeps stretches.
local function token_bucket(key, state, time, cost, amount, period, tick, volume, number)
  state = state or call('GET', key)
  local at = (time - time % tick) / tick
  local debt = 0
  local before, last
  if state then
    before, last = unpack_values('<dd', state)
    debt = before
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
      if last - at > period then
        debt = 0
      else
        at, time = last, last * tick
      end
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
  if cost == 0 then
    return left, reset, 0, nil, idle
  end
  if debt == 0 or number ~= 4 or before > volume or (#state == 16 and at == last) then
    return left, reset, 0, pack('<dd', owed, at), idle
  end

  local minima = #state > 16 and state or state .. pack('<dddd', last, last, 0, 0)
  local size = #minima
  local low, _, least, floor = unpack_values('<dddd', minima, size - 31)
  if (at - low) * amount < period then
    least = debt < least and debt or least
    floor = floor - (before - debt)
    size = size - 32
    while size > 16 and unpack_values('<d', minima, size - 15) >= least do
      size = size - 32
    end
    if size == 16 then
      return left, reset, 0, pack('<dddddd', owed, at, low, at, least, floor), idle
    end
    local after = pack('<dd', owed, at) .. string.sub(minima, 17, size)
    return left, reset, 0, after .. pack('<dddd', low, at, least, floor), idle
  end
  while size > 16 and least >= debt do
    size = size - 32
    least = size > 16 and unpack_values('<d', minima, size - 15)
  end
  local after = pack('<dd', owed, at)
  local from = 17
  if size == 528 then  -- two that are no longer than they are old become one
    local place = 17
    for begin = 17, 465, 32 do
      local ended = unpack_values('<d', minima, begin + 40)
      if ended - unpack_values('<d', minima, begin) <= at - ended then
        place = begin
        break
      end
    end
    local begun, upto, first, under, _, ended, second = unpack_values('<ddddddd', minima, place)
    after = after .. string.sub(minima, 17, place - 1)
      .. pack('<dddd', begun, ended, first < second and first or second,
        under - (ended - upto) * amount)
    from = place + 64
  end
  after = after .. string.sub(minima, from, size) .. pack('<dddd', at, at, debt, debt)
  return left, reset, 0, after, idle
end

-- What the charge still weighs: the smallest debt since, and its cost at most.
local function refund(text, charged, now, cost, amount, period, tick, volume)
  local debt, last = unpack_values('<dd', text)
  local at, since = (now - now % tick) / tick, (charged - charged % tick) / tick
  local elapsed = at > last and at - last or 0
  local left = debt - elapsed * amount
  -- Nothing is owed, or it is another state that was charged.
  if elapsed >= (volume + -volume % amount) / amount or left <= 0 or since > last then
    return text
  end
  local minima = #text > 16 and string.sub(text, 17) or pack('<dddd', last, last, 0, 0)
  local price = cost * period
  local back = price < left and price or left
  local own  -- the stretch in which it was charged
  if since < last then
    local most
    for from = 1, #minima, 32 do
      local low, _, least, floor = unpack_values('<dddd', minima, from)
      if low <= since then
        own, most = from, floor + price
        most = least > most and least or most
      elseif least < back then
        back = least
      end
    end
    if not own then
      return text
    end
    back = most < back and most or back
    back = back > 0 and back or 0
  end
  local kept = ''
  for from = 1, #minima, 32 do
    local low, upto, least, floor = unpack_values('<dddd', minima, from)
    local more = low <= since and price - back or -back
    floor = floor + more
    least = least + (from == own and -back or more)
    least = least > floor and least or floor
    kept = (least > 0 and kept or '') .. pack('<dddd', low, upto, least, floor)
  end
  if kept == pack('<dddd', last, last, 0, 0) then
    kept = ''
  end
  return pack('<dd', debt - back, last) .. kept
end
