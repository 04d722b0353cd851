-- One request, over and over; counts the answers by status, and those that end the connection.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local report = require("report")

local threads = {}

function setup(thread)
   threads[#threads + 1] = thread
end

function init()
   statuses, closes = {}, 0      -- global: `done` reads them through thread:get
end

function response(status, headers)
   statuses[status] = (statuses[status] or 0) + 1
   if (headers["Connection"] or headers["connection"]) == "close" then closes = closes + 1 end
end

function done(summary, latency)
   local parts, ended = {}, 0
   for _, thread in ipairs(threads) do        -- wrk is started with one thread
      for status, count in pairs(thread:get("statuses")) do
         parts[#parts + 1] = string.format('"%d": %d', status, count)
      end
      ended = ended + thread:get("closes")
   end
   report.print(summary, latency,
      ', "statuses": {' .. table.concat(parts, ", ") .. '}, "closes": ' .. ended)
end
