-- algorithms: the five by their number in a charge, in the order of proxy.core.limits.ALGORITHMS; 6
-- is a token_bucket whose charges are never given back.
-- One is made when it is asked for: a call has one or two, and all five would cost it more than its
-- limits do.
--
-- An algorithm is two functions:
--   step(key, state, now, cost, amount, period, tick, volume, number)
--       what a charge of `cost` comes to: remaining, or -1 where it is denied; reset; wait, which
--       is retry_after of a denied one and else delay; then the state after it, nil where nothing
--       is charged, and when a state will be idle. `state` is what an earlier charge left of the
--       same key, or nil, and it is read. Nothing is written.
--   refund(text, charged, now, cost, amount, period, tick, volume)
--       a state as it is stored, without a charge of the time `charged`.
-- A state is the text that is stored, or a table with write(key, left), which stores it for so many
-- milliseconds.

--@include charges
local function algorithm_of(number)
  if number == 1 then
--@include fixed_window
    return fixed_window, refund
  elseif number == 2 then
--@include sliding_window
    return sliding_window, refund
  elseif number == 3 then
--@include sliding_log
    return sliding_log, refund
  end
--@include token_bucket
  if number ~= 5 then
    return token_bucket, refund
  end
--@include leaky_bucket
  return leaky_bucket
end
