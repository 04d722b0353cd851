-- Says what came of a request that was sent, for the record's owner, and wakes who waits.
--
-- KEYS     1   the record
-- ARGV     8   now: ms since the epoch, or empty for the server's clock; token: bytes; outcome:
--              recorded, too_large or unknown; head and body of a recorded one, else empty; ttl: ms;
--              the channel; the message
-- RETURNS  1, or 0 where it was not the caller's to say
-- O(bytes of the answer), and O(subscribers)

local NOW, TOKEN, OUTCOME, HEAD, BODY = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local TTL, CHANNEL, MESSAGE = tonumber(ARGV[6]), ARGV[7], ARGV[8]

--@include idempotency_record

local key = KEYS[1]
local record = read_record(key)
-- The same may be said again, as the first word may have had no answer.
local may = {sent = true, unknown = true, [OUTCOME] = true}
if record.token ~= TOKEN or not may[record.state] then
  return 0
end
redis.call('HSET', key, 'state', OUTCOME, 'ends', whole_text(now + TTL))
if OUTCOME == 'recorded' then
  redis.call('HSET', key, 'head', HEAD, 'body', BODY)
end
keep(key, TTL)
-- Whoever waits looks again by itself: a user that may not publish has still said it.
redis.pcall('PUBLISH', CHANNEL, MESSAGE)
return 1
