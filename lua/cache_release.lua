-- Lets go of a lease, for whoever still has it, and wakes those who wait for it.
--
-- KEYS     1   the lease
-- ARGV     3   token: bytes; the channel; the message
-- RETURNS  1, or 0 where it is another's or nobody's
-- O(1), and O(subscribers) where somebody waits

local TOKEN, CHANNEL, MESSAGE = ARGV[1], ARGV[2], ARGV[3]

local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 2) == TOKEN then
  redis.call('DEL', KEYS[1])
  if string.sub(held, 1, 1) == 'w' then
    -- A user that may not publish has still let go; those who wait look again when it would end.
    redis.pcall('PUBLISH', CHANNEL, MESSAGE)
  end
  return 1
end
return 0
