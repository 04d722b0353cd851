-- Shared by the scripts of this folder: prints one JSON line when wrk is done.
-- extra: further members, as text that begins with a comma, or "".
local report = {}

function report.print(summary, latency, extra)
   local e = summary.errors
   print(string.format(
      '{"requests": %d, "us": %d, "p50": %d, "p99": %d, "errors": ' ..
      '{"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}%s}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      e.connect, e.read, e.write, e.timeout, e.status, extra))
end

return report
