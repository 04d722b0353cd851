-- Removes a record, whoever's it is and whatever it says, and wakes who waits.
--
-- KEYS     1   the record
-- ARGV     3   now: ms since the epoch, or empty for the server's clock; the channel; the message
-- RETURNS  1, or 0 where there was none
-- O(bytes of the answer), and O(subscribers)

local NOW, CHANNEL, MESSAGE = ARGV[1], ARGV[2], ARGV[3]

--@include idempotency_record

local key = KEYS[1]
local there = read_record(key).state ~= 'absent'
redis.call('DEL', key)
if not there then
  return 0
end
-- Whoever waits looks again by itself: a user that may not publish has still freed it.
redis.pcall('PUBLISH', CHANNEL, MESSAGE)
return 1
