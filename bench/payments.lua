-- POSTs with an Idempotency-Key each: a new one every time, or, to a path with "again" in it, 1,000
-- over and over.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local report = require("report")

local before, after, at, most = "", "", 0, 0

function init()
   local again = wrk.path:find("again") ~= nil
   -- A run's own keys: the machine's clock, and an address that differs between processes.
   local run = again and "again" or os.time() .. tostring({}):match("0x(%x+)")
   local body = '{"amount": 100, "text": "' .. string.rep("x", 170) .. '"}'
   local text = wrk.format("POST", wrk.path, {
      ["X-Api-Key"] = "key-1",
      ["Content-Type"] = "application/json",
      ["User-Agent"] = "wrk",
      ["Idempotency-Key"] = run .. "-@",
   }, body)
   before, after = text:match("^(.*)@(.*)$")
   most = again and 1000 or math.huge
end

function request()
   at = at < most and at + 1 or 1
   return before .. at .. after
end

function done(summary, latency)
   report.print(summary, latency, "")
end
