-- Marks a record as sent, for its owner, who may send from then on.
--
-- KEYS     1   the record
-- ARGV     4   now: ms since the epoch, or empty for the server's clock; token: bytes; ttl: ms;
--              lease: ms
-- RETURNS  1, or 0 where it is not the caller's any more
-- O(1)

local NOW, TOKEN, TTL, LEASE = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

--@include idempotency_record

local key = KEYS[1]
local record = read_record(key)
if record.token ~= TOKEN or (record.state ~= 'claimed' and record.state ~= 'sent') then
  return 0
end
if record.state == 'claimed' then
  redis.call('HSET', key, 'state', 'sent', 'ends', whole_text(now + TTL))
  keep(key, TTL)
end
redis.call('HSET', key, 'lease_ends', whole_text(now + LEASE))
return 1
