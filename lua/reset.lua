-- Forgets the state of one limit for one key, and tells every process that remembers a denial.
--
-- KEYS     1   the state
-- ARGV     1   the channel on which the key's name is published
-- RETURNS  1 where there was a state, else 0
-- O(1), and O(N) for a sliding_log and for the subscribers

local CHANNEL = ARGV[1]

local had = redis.call('DEL', KEYS[1])
-- Denials are remembered for a second at most: a user that may not publish has still reset it.
redis.pcall('PUBLISH', CHANNEL, KEYS[1])
return had
