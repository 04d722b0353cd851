-- The lease of a primary key: who has it fetches for everybody.
--
-- KEYS     1   the lease
-- ARGV     2   token: bytes; ttl: ms
-- RETURNS  0 where it is the caller's now, else the ms that another still has it for at most
-- O(1)

local TOKEN, TTL = ARGV[1], ARGV[2]

local held = redis.call('GET', KEYS[1])
if not held then
  redis.call('SET', KEYS[1], '-' .. TOKEN, 'PX', TTL)
  return 0
end
-- The first byte says whether anybody waits: only then is there somebody to wake.
redis.call('SETRANGE', KEYS[1], 0, 'w')
return math.max(1, redis.call('PTTL', KEYS[1]))
