-- Numbers a purge, keeps it, and tells every process.
--
-- KEYS     2   the purges' numbers; the bans
-- ARGV     7   the lowest number that may be given; retention: ms, the longest for which anything
--              may be kept; how: h (hard) or s (soft); tags: 8 bytes each; ban: '' or '=' and a
--              prefix; the channel; the message, which follows the number and a space
-- RETURNS  the purge's number; 1, or 0 where it is kept but nobody could be told, as the user may
--          not publish
-- O(T log N) for T tags, N purges that are not forgotten: not with what they void

local LEAST, RETENTION, HOW = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local TAGS, BAN, CHANNEL, MESSAGE = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local MOST_BANS = 256

--@include cache_numbers

local numbers, bans = KEYS[1], KEYS[2]
local state = read_state(numbers, LEAST)
local number = math.max(now_us, LEAST, state.last + 1)
local text = number_text(number)

-- The soft purges of these tags, or this prefix, are no longer the last ones.
local function keep_before(key, names)
  local members, words = {}, {}
  for place, name in ipairs(names) do
    members[place] = 's' .. name
  end
  for place, number_before in ipairs(redis.call('ZMSCORE', key, unpack(members))) do
    if number_before then
      words[#words + 1] = number_before
      words[#words + 1] = 'p' .. names[place]
    end
  end
  if #words > 0 then
    redis.call('ZADD', key, unpack(words))
  end
end

-- An older ban counts for everything from here on.
local function widen(kind, older)
  if kind == 'h' then
    redis.call('ZADD', bans, 'GT', older, 'h')
    return
  end
  local soft = tonumber(redis.call('ZSCORE', bans, 's') or 0)
  local least = math.min(soft, tonumber(older))
  redis.call('ZADD', bans, 'GT', older, 's')
  if 0 < least and least < math.max(soft, tonumber(older)) then
    redis.call('ZADD', bans, 'GT', number_text(least), 'p')
  end
end

-- The oldest prefixes become bans of everything, of their own time, where there are too many. Three
-- bans of everything there can be, so one of the four oldest is another.
local function collapse()
  while redis.call('ZCARD', bans) > MOST_BANS do
    local oldest = redis.call('ZRANGE', bans, 0, 3, 'WITHSCORES')
    local place = 1
    while #oldest[place] == 1 do
      place = place + 2
    end
    redis.call('ZREM', bans, oldest[place])
    widen(string.sub(oldest[place], 1, 1), oldest[place + 1])
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

local BYTES = 8 * CHUNK / 4
for first = 1, #TAGS, BYTES do
  local tags = tags_in(string.sub(TAGS, first, first + BYTES - 1))
  if HOW == 's' then
    keep_before(numbers, tags)
  end
  local words = {}
  for _, tag in ipairs(tags) do
    words[#words + 1] = text
    words[#words + 1] = HOW .. tag
  end
  redis.call('ZADD', numbers, unpack(words))
end
state.last = number
if BAN ~= '' then
  local prefix = string.sub(BAN, 2)
  if prefix == '' and HOW == 'h' then
    redis.call('DEL', bans)  -- what voids everything makes earlier bans needless
  elseif HOW == 's' then
    keep_before(bans, {prefix})
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
local told = redis.pcall('PUBLISH', CHANNEL, text .. ' ' .. MESSAGE)
return {number, type(told) == 'number' and 1 or 0}
