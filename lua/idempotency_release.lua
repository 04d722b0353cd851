-- Lets go of a record, for its owner, and wakes who waits: nothing was sent, or what came of it is
-- not kept.
--
-- KEYS     1   the record
-- ARGV     4   now: ms since the epoch, or empty for the server's clock; token: bytes; the channel;
--              the message
-- RETURNS  1, or 0 where it is settled, another's or nobody's
-- O(subscribers)

local NOW, TOKEN, CHANNEL, MESSAGE = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

--@include idempotency_record

local key = KEYS[1]
local record = read_record(key)
local may = {claimed = true, sent = true, unknown = true}
if record.token ~= TOKEN or not may[record.state] then
  return 0
end
redis.call('DEL', key)
-- Whoever waits looks again by itself: a user that may not publish has still let go.
redis.pcall('PUBLISH', CHANNEL, MESSAGE)
return 1
