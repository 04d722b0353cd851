-- What is known of a request that may come again; where nothing is, the record is the caller's.
--
-- KEYS     1   the record
-- ARGV     6   now: ms since the epoch, or empty for the server's clock; token: bytes;
--              fingerprint: bytes; lease: ms; release: 1 where one of unknown outcome is given out
--              again, else empty; inline: bytes of the largest body that is answered at once
-- RETURNS  mine; replay, its head, its body (nil where that is larger) and its length; running, ms
--          left of the lease; mismatch; unknown; or too_large
-- O(bytes of the answer)

local NOW, TOKEN, FINGERPRINT = ARGV[1], ARGV[2], ARGV[3]
local LEASE, RELEASE, INLINE = tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])

--@include idempotency_record

local key = KEYS[1]
local record = read_record(key)
local state = record.state

if state ~= 'absent' and record.fingerprint ~= FINGERPRINT then
  return {'mismatch'}
end
if state == 'absent' or (state == 'unknown' and RELEASE) then
  -- First what needs memory: a full server then refuses before anything is written.
  redis.call('HSET', key, 'state', 'claimed', 'token', TOKEN, 'fingerprint', FINGERPRINT,
    'lease_ends', whole_text(now + LEASE))
  redis.call('HDEL', key, 'ends', 'head', 'body')
  keep(key, LEASE)
  return {'mine'}
end
if state == 'recorded' then
  local length = redis.call('HSTRLEN', key, 'body')
  local body = length <= INLINE and redis.call('HGET', key, 'body')
  return {'replay', redis.call('HGET', key, 'head'), body, length}
end
if state == 'claimed' or state == 'sent' then
  return {'running', record.lease_ends - now}
end
return {state}
