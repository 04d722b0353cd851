-- cache_clock: the server's time since the epoch, in µs and in ms.

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)
