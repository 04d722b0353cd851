-- Holds a lease on, for whoever still has it.
--
-- KEYS     1   the lease
-- ARGV     2   token: bytes; ttl: ms
-- RETURNS  1, or 0 where it is another's or nobody's
-- O(1)

local TOKEN, TTL = ARGV[1], ARGV[2]

local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 2) == TOKEN then
  redis.call('PEXPIRE', KEYS[1], TTL)
  return 1
end
return 0
