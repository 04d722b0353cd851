-- Numbers a purge, keeps it, and tells every process.
--
-- KEYS     2   the purges' numbers; the bans
-- ARGV     7   the lowest number that may be given; retention: ms, the longest for which anything
--              may be kept; how: h (hard) or s (soft); tags: 8 bytes each; ban: '' or '=' and a
--              prefix; the channel; the message, which follows the number and a space
-- RETURNS  the purge's number
-- O(T log N) for T tags, N purges that are not forgotten: not with what they void

local LEAST, RETENTION, HOW = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local TAGS, BAN, CHANNEL, MESSAGE = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local MOST_BANS = 256

--@include cache_numbers

local numbers, bans = KEYS[1], KEYS[2]
local state = read_state(numbers, LEAST)
local number = math.max(now_us, LEAST, state.last + 1)
local text = number_text(number)

-- What voids everything makes earlier bans needless: all of them, or the soft ones.
local function clear_bans()
  if HOW == 'h' then
    redis.call('DEL', bans)
    return
  end
  for _, ban in ipairs(redis.call('ZRANGE', bans, 0, -1)) do
    if string.sub(ban, 1, 1) == 's' then
      redis.call('ZREM', bans, ban)
    end
  end
end

-- The oldest prefixes become bans of everything, of their own time, where there are too many. Two
-- bans of everything there can be, so one of the three oldest is another.
local function collapse()
  while redis.call('ZCARD', bans) > MOST_BANS do
    local oldest = redis.call('ZRANGE', bans, 0, 2, 'WITHSCORES')
    local place = 1
    while #oldest[place] == 1 do
      place = place + 2
    end
    redis.call('ZREM', bans, oldest[place])
    redis.call('ZADD', bans, 'GT', oldest[place + 1], string.sub(oldest[place], 1, 1))
  end
end

-- Purges so old that all they could void has gone. What began before them does not count any more.
local function forget(key)
  local before = now_us - (state.retention + MARGIN) * 1000
  local gone = redis.call('ZRANGEBYSCORE', key, 1, number_text(before), 'WITHSCORES',
    'LIMIT', 0, FORGET)
  for place = 1, #gone, 2 do
    redis.call('ZREM', key, gone[place])
    state.born = math.max(state.born, tonumber(gone[place + 1]))
  end
end

for first = 1, #TAGS, 8 * CHUNK / 2 do
  local words = {}
  for _, tag in ipairs(tags_in(string.sub(TAGS, first, first + 8 * CHUNK / 2 - 1))) do
    words[#words + 1] = text
    words[#words + 1] = HOW .. tag
  end
  redis.call('ZADD', numbers, unpack(words))
end
state.last = number
if BAN ~= '' then
  local prefix = string.sub(BAN, 2)
  if prefix == '' then
    clear_bans()
  end
  redis.call('ZADD', bans, text, HOW .. prefix)
  collapse()
  state.bans = number
end
keep_retention(numbers, state, RETENTION)
forget(numbers)
forget(bans)
if redis.call('EXISTS', bans) == 0 then
  state.bans = state.born
end
redis.call('ZADD', numbers, number_text(-state.born), 'B', number_text(-state.last), 'N',
  number_text(-state.bans), 'P')
live(numbers, state)
live(bans, state)
redis.call('PUBLISH', CHANNEL, text .. ' ' .. MESSAGE)
return number
