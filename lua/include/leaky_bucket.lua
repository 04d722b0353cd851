-- leaky_bucket: one request leaves per period/N, the first at once; up to `burst` wait their turn.
-- The twin of proxy/core/limits/leaky_bucket.py.
--
-- State: {debt, last}, that of a token_bucket of burst + 1 units.
--
-- There is no refund: those who came later have been told to wait behind this one.

--@include token_bucket
local function leaky_bucket()
  local bucket = token_bucket()

  local function step(state, charge, time, cost)
    local after, allowed, left, reset, retry = bucket.step(state, charge, time, cost)
    if cost == 0 or allowed == 0 then
      return after, allowed, left, reset, retry, 0
    end
    local ahead = after[1] - cost * charge.period
    if ahead == 0 then
      return after, 1, left, reset, 0, 0
    end
    local tick = charge.tick
    local delay = (after[2] + up(ahead, charge.amount)) * tick - max(time, after[2] * tick)
    return after, 1, left, reset, 0, delay
  end

  return {read = bucket.read, step = step, write = bucket.write}
end
