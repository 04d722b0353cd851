-- Keeps a body that is apart from its entry; the entry is put when it is there.
--
-- KEYS     1   the body
-- ARGV     2   ttl: ms; the bytes
-- RETURNS  1
-- O(bytes)

local TTL, BYTES = ARGV[1], ARGV[2]

redis.call('SET', KEYS[1], BYTES, 'PX', TTL)
return 1
