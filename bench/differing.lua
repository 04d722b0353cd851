-- 1,000 different requests, over and over: a path, an API key and a traceparent each.
-- They are formatted once, so that wrk itself stays out of the measurement.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local report = require("report")

local requests, at = {}, 0

function init()
   math.randomseed(1)
   for i = 1, 1000 do
      local trace = {}
      for j = 1, 6 do trace[j] = string.format("%08x", math.random(0, 0xffffffff)) end
      requests[i] = wrk.format("GET", "/api/users/" .. i .. "?page=" .. i % 7, {
         ["X-Api-Key"] = "key-" .. i,
         ["Accept"] = "application/json",
         ["User-Agent"] = "wrk",
         ["traceparent"] = "00-" .. table.concat(trace, "", 1, 4) .. "-" .. trace[5] .. trace[6] .. "-01",
      })
   end
end

function request()
   at = at % 1000 + 1
   return requests[at]
end

function done(summary, latency)
   report.print(summary, latency, "")
end
