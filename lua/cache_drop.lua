-- Takes one variant out, with its body.
--
-- KEYS     1   the entries
-- ARGV     2   id: 16 bytes; what the keys of bodies begin with
-- RETURNS  1
-- O(bytes of the entries)

local ID, BODY = ARGV[1], ARGV[2]

--@include cache_entries

rewrite(KEYS[1], {[ID] = true}, function(key)
  redis.call('UNLINK', key)
end)
return 1
