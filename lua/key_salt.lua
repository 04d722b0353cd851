-- Gives the salt of the hashes that keys are shown by, and makes it where there is none yet. It has
-- no time to live: what was shown yesterday must be found again today, by every process.
--
-- KEYS     1   the salt
-- ARGV     1   what it is to be, where there is none: bytes
-- RETURNS  the salt
-- O(1)

local SALT = ARGV[1]

redis.call('SET', KEYS[1], SALT, 'NX')
return redis.call('GET', KEYS[1])
