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
-- A step leaves a long log as a table {cells, head, last, added, write}: `cells` units are stored,
-- the first `head` of them gone; `added` more at the tick `last` are not stored yet.

local SHORT, CELL = 256, 8

-- The tick of a unit, of a log that was read (or not, and is read in places).
local function cell(text, key, place)
  local from = CELL * (place - 1)
  if text then
    return (unpack_values('<d', text, from + 1))
  end
  return (unpack_values('<d', call('GETRANGE', key, from, from + CELL - 1)))
end

local function sliding_log(key, state, time, cost, amount, period, tick)
  local at = (time - time % tick) / tick
  local text, cells, head, last, added = nil, 0, 0, at, 0
  if type(state) == 'table' then
    cells, head, last, added = state.cells, state.head, state.last, state.added
  else
    if state or amount <= SHORT then
      text = state or call('GET', key) or ''
      cells = #text / CELL
    else
      cells = call('STRLEN', key) / CELL
    end
    if cells > 0 then
      last = cell(text, key, cells)
    else
      text = ''  -- where nothing is stored, there is nothing to append to
    end
  end

  if at < last and last - at <= period then
    at, time = last, last * tick
  end
  local gone = at - period
  local first  -- the tick of the oldest live unit, nil where that is not stored
  if last > at then
    head, last, added = cells, at, 0
  elseif last <= gone then
    head, added = cells, 0
  elseif head < cells then
    first = cell(text, key, head + 1)
    if first <= gone then
      -- How many are gone, where the first that was live is: a binary search.
      local low, high = head + 1, cells
      while low < high do
        local middle = low + high + 1
        middle = (middle - middle % 2) / 2
        if cell(text, key, middle) <= gone then
          low = middle
        else
          high = middle - 1
        end
      end
      head = low
      first = head < cells and cell(text, key, head + 1) or nil
    end
  end
  local used = cells - head + added
  if used > amount then  -- it is not the oldest whose end makes room for one more
    local place = head + used - amount + 1
    first = place <= cells and cell(text, key, place) or nil
  end
  local over = used + cost - amount
  if cost > 0 and over > 0 then
    local place = head + over
    local needed = place <= cells and cell(text, key, place) or last
    return -1, ((first or last) + period) * tick - time, (needed + period) * tick - time
  end

  local after
  if cost > 0 then
    used, last = used + cost, at
    if text then
      after = string.sub(text, CELL * head + 1) .. string.rep(pack('<d', at), cost)
    else
      after = {cells = cells, head = head, last = at, added = added + cost}
      function after.write(log, left)
        local units = string.rep(pack('<d', after.last), after.added)
        if 2 * head > cells - head then
          call('SET', log, call('GETRANGE', log, CELL * head, -1) .. units, 'PX', left)
        else
          call('APPEND', log, units)
          call('PEXPIRE', log, left)
        end
      end
    end
  end
  local reset = used > 0 and ((first or last) + period) * tick - time or 0
  return used < amount and amount - used or 0, reset, 0, after, (last + period) * tick
end

-- Takes away units of the tick that was charged: they are all alike.
local function refund(text, charged, _, cost, _, _, tick)
  local at = (charged - charged % tick) / tick
  local upto = #text / CELL
  while upto > 0 and cell(text, nil, upto) > at do
    upto = upto - 1
  end
  local from = upto
  while from > 0 and upto - from < cost and cell(text, nil, from) == at do
    from = from - 1
  end
  return string.sub(text, 1, CELL * from) .. string.sub(text, CELL * upto + 1)
end
