-- All that is stored under a primary key, with the purges that concern it.
--
-- KEYS     1+  the entries; then, where they are on the same server, the purges' numbers
-- ARGV     1   the lowest number that may be given out for a purge
-- RETURNS  the entries, as include/cache_entries.lua says; the time (ms since the epoch); and with
--          the numbers: born, last, bans (include/cache_numbers.lua), then {tag, hard, soft, before} for
--          each tag of the entries that was purged
-- O(bytes of the entries + T log N) for T tags, N purges that are not forgotten

local LEAST = tonumber(ARGV[1])

--@include cache_entries
--@include cache_numbers

local text = redis.call('GET', KEYS[1]) or ''
if not KEYS[2] then
  return {text, now_ms}
end
local state = read_state(KEYS[2], LEAST)
local answer = {text, now_ms, state.born, state.last, state.bans}
if text ~= '' then
  add_purged(answer, KEYS[2], tags_of(text))
end
return answer
