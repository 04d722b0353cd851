-- algorithms: the five by their number in a charge, in the order of proxy.core.limits.ALGORITHMS.

--@include charges
--@include fixed_window
--@include sliding_window
--@include sliding_log
--@include token_bucket
--@include leaky_bucket
local algorithms = {fixed_window, sliding_window, sliding_log, token_bucket, leaky_bucket}
