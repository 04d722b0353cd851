-- A body that is kept apart.
--
-- KEYS     1   the body
-- ARGV     0
-- RETURNS  the bytes, or nil
-- O(bytes)

return redis.call('GET', KEYS[1])
