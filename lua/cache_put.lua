-- Puts a variant or a mark under a primary key, in place of the one with its id.
--
-- KEYS     1+  the entries; then the body's key, where it is apart
-- ARGV     7   kind: v or m; id: 16 bytes; ttl: ms; tags: 8 bytes each; record: bytes; others that
--              go, 16 bytes each; what the keys of bodies begin with
-- RETURNS  1, or 0 where the body has gone: then nothing is put
-- O(bytes of the entries)

local KIND, ID, TTL, TAGS, RECORD, OTHERS, BODY =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]

--@include cache_entries

local body = KEYS[2] and string.sub(KEYS[2], #BODY + 1) or NO_BODY
-- Longer than the entry, so that it is there as long as something leads to it.
if KEYS[2] and redis.call('PEXPIRE', KEYS[2], TTL + LINGER) == 0 then
  return 0
end

local goes = {[ID] = true}
for at = 1, #OTHERS, 16 do
  goes[string.sub(OTHERS, at, at + 15)] = true
end
local expires = now_ms + TTL
local length = HEAD - 4 + #TAGS + #RECORD
local head = struct.pack(ENTRY, length, KIND, ID, expires, body, #TAGS / TAG)
local function leave(key)
  redis.call('PEXPIRE', key, LINGER)
end
rewrite(KEYS[1], goes, leave, {text = head .. TAGS .. RECORD, expires = expires, body = body})
return 1
