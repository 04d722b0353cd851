-- Holds a record for another lease, for its owner: also for one that is late, if nobody has taken
-- it over.
--
-- KEYS     1   the record
-- ARGV     3   now: ms since the epoch, or empty for the server's clock; token: bytes; lease: ms
-- RETURNS  1, or 0 where it is not the caller's any more
-- O(1)

local NOW, TOKEN, LEASE = ARGV[1], ARGV[2], tonumber(ARGV[3])

--@include idempotency_record

local key = KEYS[1]
local record = read_record(key)
if record.token ~= TOKEN or record.state == 'absent' or not LEASE_OVER[record.said] then
  return 0
end
redis.call('HSET', key, 'lease_ends', whole_text(now + LEASE))
if record.said == 'claimed' then
  keep(key, LEASE)
end
return 1
