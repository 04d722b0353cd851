-- idempotency_record: one record of idempotent replay, the twin of proxy/core/idempotency.py.
--
-- A hash, with the state by the last event:
--   state (claimed, sent, recorded, too_large, unknown) · token, its owner's · fingerprint ·
--   lease_ends · ends, once it was sent: when it is forgotten · head, body: the answer of a
--   recorded one, which only Python reads. Times are ms since the epoch.

-- The server's clock decides, in ms since the epoch; tests give a time.
local given = NOW ~= ''
local now
if given then
  now = tonumber(NOW)
else
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local LEASE_OVER = {claimed = 'absent', sent = 'unknown'}

local function whole_text(number)
  return string.format('%.0f', number)
end

-- The record: its state at this moment (`absent` where it is over), what was said last, its owner,
-- its fingerprint and its times. One that is not there is absent, too, and says nothing else.
local function read_record(key)
  local said, token, fingerprint, lease_ends, ends = unpack(
    redis.call('HMGET', key, 'state', 'token', 'fingerprint', 'lease_ends', 'ends'))
  if not said then
    return {state = 'absent'}
  end
  local record = {state = said, said = said, token = token, fingerprint = fingerprint,
    lease_ends = tonumber(lease_ends)}
  if ends and now >= tonumber(ends) then
    record.state = 'absent'
  elseif LEASE_OVER[said] and now >= record.lease_ends then
    record.state = LEASE_OVER[said]
  end
  return record
end

-- Has the key live for so many ms. One is added because the server counts them from the
-- millisecond that has begun: the key must not go before its time. A time that was given is not
-- the one that keys expire by, so they stay ten minutes longer.
local function keep(key, left)
  redis.call('PEXPIRE', key, whole_text(left + (given and 600000 or 1)))
end
