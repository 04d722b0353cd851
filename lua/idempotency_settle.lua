-- Says what came of a request that was sent, for the record's owner, and wakes who waits. Where
-- there is no record any more, as a failover has lost it, it is made anew.
--
-- KEYS     1   the record
-- ARGV     9   now: ms since the epoch, or empty for the server's clock; token: bytes;
--              fingerprint: bytes; outcome: recorded, too_large or unknown; head and body of a
--              recorded one, else empty; ttl: ms; the channel; the message
-- RETURNS  1, or 0 where it was not the caller's to say
-- O(bytes of the answer), and O(subscribers)

local NOW, TOKEN, FINGERPRINT, OUTCOME = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local HEAD, BODY, TTL = ARGV[5], ARGV[6], tonumber(ARGV[7])
local CHANNEL, MESSAGE = ARGV[8], ARGV[9]

--@include idempotency_record

local key = KEYS[1]
local record = read_record(key)
-- The same may be said again, as the first word may have had no answer.
local may = {sent = true, unknown = true, [OUTCOME] = true}
local lost = record.state == 'absent'
if not lost and (record.token ~= TOKEN or not may[record.state]) then
  return 0
end
redis.call('HSET', key, 'state', OUTCOME, 'ends', whole_text(now + TTL))
if lost then
  redis.call('HSET', key, 'token', TOKEN, 'fingerprint', FINGERPRINT,
    'lease_ends', whole_text(now))
  redis.call('HDEL', key, 'head', 'body')
end
if OUTCOME == 'recorded' then
  redis.call('HSET', key, 'head', HEAD, 'body', BODY)
end
keep(key, TTL)
-- Whoever waits looks again by itself: a user that may not publish has still said it.
redis.pcall('PUBLISH', CHANNEL, MESSAGE)
return 1
