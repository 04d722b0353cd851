-- cache_entries: what a primary key holds, as one string: its variants and marks, oldest first.
--
-- An entry is packed as '<I4c1c16dc8I2' and what follows:
--   length of all that follows it · kind ('v' variant, 'm' mark) · id · when it expires (ms since
--   the epoch) · its body's name (zeros: none apart) · how many tags · the tags, 8 bytes each ·
--   the record, which only Python reads.
--
-- The key of a body is BODY and the body's name, in the slot of the primary key's. Which bodies
-- there are is known only here, so their keys cannot all be given as KEYS.

local unpack_values = struct.unpack
local ENTRY = '<I4c1c16dc8I2'
local HEAD = 39
local TAG = 8
local NO_BODY = string.rep('\0', 8)
local MOST = 64            -- entries
local MOST_BYTES = 524288  -- of all of them; one alone may have more
local LINGER = 10000       -- ms that a body outlives its entry: somebody may be about to read it

--@include cache_clock

-- Calls visit(id, expires, body, first, last, tags) for each entry: the places of its first and
-- last byte, and how many tags it has.
local function each_entry(text, visit)
  local at = 1
  while at <= #text do
    local length, _, id, expires, body, tags = unpack_values(ENTRY, text, at)
    visit(id, expires, body, at, at + 3 + length, tags)
    at = at + 4 + length
  end
end

-- Every tag of every entry, each once.
local function tags_of(text)
  local found, seen = {}, {}
  each_entry(text, function(_, _, _, first, _, tags)
    for at = first + HEAD, first + HEAD + (tags - 1) * TAG, TAG do
      local tag = string.sub(text, at, at + TAG - 1)
      if not seen[tag] then
        seen[tag] = true
        found[#found + 1] = tag
      end
    end
  end)
  return found
end

-- Takes out what has expired and whatever `goes` (id → true) names, puts `entry` (text, expires,
-- body) last where it is given, and lets the oldest go where they are too many. `leave` is called
-- with the key of each body that nothing leads to any more.
local function rewrite(key, goes, leave, entry)
  local text = redis.call('GET', key) or ''
  local found = {}
  each_entry(text, function(id, expires, body, first, last)
    found[#found + 1] = {first, last, expires, body, expires > now_ms and not goes[id]}
  end)
  local room, bytes, latest, newest_first = MOST, MOST_BYTES, 0, {}
  if entry then
    room, bytes, latest, newest_first = room - 1, bytes - #entry.text, entry.expires, {entry.text}
  end
  for place = #found, 1, -1 do
    local first, last, expires, body, stays = unpack(found[place])
    if stays and room > 0 and last - first < bytes then
      room = room - 1
      bytes = bytes - (last - first + 1)
      latest = math.max(latest, expires)
      newest_first[#newest_first + 1] = string.sub(text, first, last)
    elseif body ~= NO_BODY and not (entry and body == entry.body) then
      leave(BODY .. body)
    end
  end
  local parts = {}
  for place = #newest_first, 1, -1 do
    parts[#parts + 1] = newest_first[place]
  end
  if #parts == 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, table.concat(parts), 'PX', latest - now_ms)
  end
end
