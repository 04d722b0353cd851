-- algorithms: the five by their number in a charge, in the order of proxy.core.limits.ALGORITHMS.
-- Each is made when it is first asked for: a call has one or two, and all five would cost it more
-- than its limits do.

--@include charges
--@include fixed_window
--@include sliding_window
--@include sliding_log
--@include token_bucket
--@include leaky_bucket
local makers = {fixed_window, sliding_window, sliding_log, token_bucket, leaky_bucket}
local made = {}

local function algorithm_of(charge)
  local number = charge.algorithm
  local algorithm = made[number]
  if not algorithm then
    algorithm = makers[number]()
    made[number] = algorithm
  end
  return algorithm
end
