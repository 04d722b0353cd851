-- Holds a lease on, for whoever still has it.
--
-- KEYS     1   the lease
-- ARGV     2   token: bytes; ttl: ms
-- RETURNS  1, 2 where somebody waits for it, or 0 where it is another's or nobody's
-- O(1)

local TOKEN, TTL = ARGV[1], ARGV[2]

local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 2) == TOKEN then
  redis.call('PEXPIRE', KEYS[1], TTL)
  return string.sub(held, 1, 1) == 'w' and 2 or 1
end
return 0
