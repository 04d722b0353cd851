-- cache_numbers: the numbers of purges, one sequence for all of them, in one sorted set.
--
-- A number is the time in µs, and always above the last one. An answer is void where one of its
-- tags has a number above the last one of when its fetch began.
--
-- Members: 'h' and a tag's 8 bytes, the last hard purge's number; 's' and the tag, the last soft
-- one's; 'p' and the tag, that of the soft one before it. Below zero, so that nothing takes them for
-- a purge:
--   B  what began before it is not known to be untouched: the set was lost, or the purges since
--      are forgotten
--   N  the last number        P  the last number of a ban        L  the longest retention, ms
--
-- The set lives as long as anything that was stored, and no purge is forgotten before all that it
-- could void has gone. So where the set is missing, nothing that was stored before counts.

local MARGIN = 3600000  -- ms for fetches under way and for clocks
local FORGET = 16       -- purges forgotten at a time, more than a purge brings on average
local CHUNK = 2000      -- arguments of one command

--@include cache_clock

local function number_text(number)
  return string.format('%.0f', number)
end

-- {born, last, bans, retention} of a set. `least`: the lowest number that may be given out, one
-- above the last one that the caller has heard of. Made anew where there is none, and where it does
-- not have that last one any more: a failover has lost it, and who knows what else.
local function read_state(key, least)
  local said = redis.call('ZMSCORE', key, 'B', 'N', 'P', 'L')
  if said[1] and said[2] and said[3] and said[4] and least <= 1 - said[2] then
    return {born = -said[1], last = -said[2], bans = -said[3], retention = -said[4]}
  end
  local first = math.max(now_us, least)
  local text = number_text(-first)
  redis.call('DEL', key)
  redis.call('ZADD', key, text, 'B', text, 'N', text, 'P', -1, 'L')
  redis.call('PEXPIRE', key, MARGIN)
  return {born = first, last = first, bans = first, retention = 1}
end

-- Remembers how long something is kept, if that is longer than all before.
local function keep_retention(key, state, retention)
  if retention > state.retention then
    state.retention = retention
    redis.call('ZADD', key, number_text(-retention), 'L')
  end
end

-- Has a key live as long as anything that is kept now.
local function live(key, state)
  redis.call('PEXPIRE', key, number_text(state.retention + MARGIN))
end

-- Appends {tag, hard, soft, before} for each of the tags that was purged.
local function add_purged(answer, key, tags)
  local step = CHUNK / 4
  for first = 1, #tags, step do
    local names = {}
    local last = math.min(first + step - 1, #tags)
    for place = first, last do
      names[#names + 1] = 'h' .. tags[place]
      names[#names + 1] = 's' .. tags[place]
      names[#names + 1] = 'p' .. tags[place]
    end
    local numbers = redis.call('ZMSCORE', key, unpack(names))
    for place = first, last do
      local at = 3 * (place - first)
      local hard, soft, before = numbers[at + 1], numbers[at + 2], numbers[at + 3]
      if hard or soft then
        answer[#answer + 1] = {
          tags[place], tonumber(hard or 0), tonumber(soft or 0), tonumber(before or 0)
        }
      end
    end
  end
end

local function tags_in(text)
  local tags = {}
  for at = 1, #text, 8 do
    tags[#tags + 1] = string.sub(text, at, at + 7)
  end
  return tags
end
