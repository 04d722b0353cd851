-- A request that was never sent before, every time, counted from the number that the path ends with:
-- another URL where the path begins with /api/urls, else another key for the same URL.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local report = require("report")

local number, before, after

function init()
   number = tonumber(wrk.path:match("%d+$"))
   local urls = wrk.path:find("^/api/urls") ~= nil
   local path = urls and "/api/urls/@" or "/api/keys"
   local fields = { ["X-Api-Key"] = urls and "key" or "key-@", ["User-Agent"] = "wrk" }
   before, after = wrk.format("GET", path, fields):match("^(.-)@(.*)$")
end

function request()
   number = number + 1
   return before .. number .. after
end

function done(summary, latency)
   report.print(summary, latency, "")
end
