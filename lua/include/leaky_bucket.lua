-- leaky_bucket: one request leaves per period/N, the first at once; up to `burst` wait their turn.
-- The twin of proxy/core/limits/leaky_bucket.py.
--
-- State: {debt, last}, that of a token_bucket of burst + 1 units.
--
-- There is no refund: those who came later have been told to wait behind this one.

local function leaky_bucket(key, state, time, cost, amount, period, tick, volume)
  local left, reset, wait, after, idle =
    token_bucket(key, state, time, cost, amount, period, tick, volume)
  if after then
    local owed, at = unpack_values('<dd', after)
    local ahead = owed - cost * period
    if ahead > 0 then
      -- By the bucket's time, where that is later.
      local since = at * tick
      wait = (at + (ahead + -ahead % amount) / amount) * tick - (time > since and time or since)
    end
  end
  return left, reset, wait, after, idle
end
