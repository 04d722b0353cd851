-- The purges of some tags, for an answer that is to be kept or whose entries are elsewhere.
--
-- KEYS     2   the purges' numbers; the bans
-- ARGV     3   the lowest number that may be given out for a purge; retention: ms for which
--              something will be kept, or 0; tags: 8 bytes each
-- RETURNS  born, last, bans, then {tag, hard, soft, before} for each of the tags that was purged
-- O(T log N) for T tags, N purges that are not forgotten

local LEAST, RETENTION, TAGS = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

--@include cache_numbers

local state = read_state(KEYS[1], LEAST)
if RETENTION > 0 then
  keep_retention(KEYS[1], state, RETENTION)
  live(KEYS[1], state)
  live(KEYS[2], state)
end
local answer = {state.born, state.last, state.bans}
add_purged(answer, KEYS[1], tags_in(TAGS))
return answer
