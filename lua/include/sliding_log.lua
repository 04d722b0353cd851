-- sliding_log: at most N units in any period, exactly.
-- The twin of proxy/core/limits/sliding_log.py.
--
-- State: a string of doubles, the tick of each unit, the oldest first. It may begin with units
-- that are gone.
--
-- Why a string: 8 bytes a unit and nothing besides, where a sorted set takes about 80 and a short
-- list 100 before its first; and any unit is found in O(1), so those that are gone in O(log N). A
-- log of at most SHORT units is read and written whole, two commands in all. A longer one is read
-- in places and appended to; it is rewritten when half as many units are gone as live, so a unit
-- is copied a few times in its life, whatever N.
--
-- In a step: {text or nil, key, cells, head, last, added}: `cells` units are stored, of which the
-- first `head` are gone; `added` more at the tick `last` are not stored yet.

local function sliding_log()
  local SHORT = 256
  local CELL = 8

  local function cell(log, place)
    local from = CELL * (place - 1)
    local text = log.text
    if text then
      return (unpack_values('<d', text, from + 1))
    end
    return (unpack_values('<d', redis.call('GETRANGE', log.key, from, from + CELL - 1)))
  end

  -- The tick of a live unit; 1 is the oldest.
  local function unit(log, head, place)
    if head + place <= log.cells then
      return cell(log, head + place)
    end
    return log.last
  end

  -- How many units are gone, where the first that was live is: a binary search.
  local function gone_until(log, tick)
    local low, high = log.head + 1, log.cells
    while low < high do
      local middle = down(low + high + 1, 2)
      if cell(log, middle) <= tick then
        low = middle
      else
        high = middle - 1
      end
    end
    return low
  end

  local function read(key, charge)
    local log = {key = key, head = 0, added = 0}
    if charge.amount <= SHORT then
      log.text = redis.call('GET', key)
      if not log.text then
        return nil
      end
      log.cells = #log.text / CELL
    else
      log.cells = redis.call('STRLEN', key) / CELL
      if log.cells == 0 then
        return nil
      end
    end
    log.last = cell(log, log.cells)
    return log
  end

  local function step(log, charge, time, cost)
    local amount, period, tick = charge.amount, charge.period, charge.tick
    local at = down(time, tick)
    -- Where nothing is stored, an empty text stands for it: there is nothing to append to.
    log = log or {text = '', cells = 0, head = 0, last = at, added = 0}
    local head, added = log.head, log.added
    if at < log.last then
      at, time = log.last, log.last * tick
    end
    if log.last <= at - period then
      head, added = log.cells, 0
    elseif head < log.cells and cell(log, head + 1) <= at - period then
      head = gone_until(log, at - period)
    end
    local used = log.cells - head + added
    local over = used + cost - amount
    -- The unit whose end makes room for one more.
    local first = used > amount and used - amount + 1 or 1
    if cost > 0 and over > 0 then
      local reset = (unit(log, head, first) + period) * tick - time
      local retry = (unit(log, head, over) + period) * tick - time
      return log, 0, 0, reset, retry, 0
    end
    if cost > 0 then
      used = used + cost
      log = {
        text = log.text, key = log.key, cells = log.cells,
        head = head, last = at, added = added + cost,
      }
    end
    local left = used < amount and amount - used or 0
    local reset = used > 0 and (unit(log, head, first) + period) * tick - time or 0
    return log, 1, left, reset, 0, 0
  end

  local function write(key, log, charge)
    local units = string.rep(pack('<d', log.last), log.added)
    local idle = (log.last + charge.period) * charge.tick
    if log.text then
      local text = string.sub(log.text, CELL * log.head + 1) .. units
      if text == '' then
        redis.call('DEL', key)
      else
        keep(key, text, idle)
      end
    elseif 2 * log.head > log.cells - log.head then
      keep(key, redis.call('GETRANGE', key, CELL * log.head, -1) .. units, idle)
    else
      redis.call('APPEND', key, units)
      redis.call('PEXPIRE', key, lifetime(idle))
    end
  end

  -- Takes away units of the tick that was charged: they are all alike.
  local function refund(log, charge, charged)
    local tick = down(charged, charge.tick)
    local text = log.text or redis.call('GET', log.key)
    log = {text = text, key = log.key, cells = log.cells, head = 0, last = log.last, added = 0}
    local upto = log.cells
    while upto > 0 and cell(log, upto) > tick do
      upto = upto - 1
    end
    local from = upto
    while from > 0 and upto - from < charge.cost and cell(log, from) == tick do
      from = from - 1
    end
    log.text = string.sub(text, 1, CELL * from) .. string.sub(text, CELL * upto + 1)
    log.cells = #log.text / CELL
    log.last = log.cells > 0 and cell(log, log.cells) or tick
    return log
  end

  return {read = read, step = step, write = write, refund = refund}
end
