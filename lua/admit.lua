-- Checks every limit of a request, then charges all of them or none.
--
-- KEYS     1+              the state of each charge, in order; all in one slot
-- ARGV     2 + 1 per key   now: µs since the epoch, or empty for the server's clock;
--                          how: charge, peek (answers as charge does, charges nothing) or refused
--                          (another limit has refused: charges nothing, and answers so);
--                          then each charge, packed as include/charges.lua says
-- RETURNS  for each charge allowed (1 or 0), remaining, reset, retry_after, delay (times in µs
--          from now), then once now itself
-- O(charges); a sliding_log adds O(log N), its cost, and a copy of its units now and then
--
-- A charge sees those before it in the same request. Shadow charges block nothing, and are charged
-- only if every other charge is allowed. A refused request's other limits answer as they are,
-- uncharged. All is read before anything is written, so an error charges nothing.

local NOW, HOW = ARGV[1], ARGV[2]
local CHARGES = 2

--@include algorithms

local answer = {0, 0, 0, 0, 0, now}  -- made at once for one charge, the usual number

local function say(place, allowed, remaining, reset, retry_after, delay)
  local base = 5 * place - 5
  answer[base + 1] = allowed
  answer[base + 2] = remaining
  answer[base + 3] = reset
  answer[base + 4] = retry_after
  answer[base + 5] = delay
end

local charges, before, after = {}, {}, {}
local refused = HOW == 'refused'

for place, key in ipairs(KEYS) do
  local charge = charge_of(ARGV[CHARGES + place])
  local algorithm = algorithm_of(charge)
  charges[place] = charge
  if before[key] == nil then
    before[key] = algorithm.read(key, charge) or false
  end
  local state, allowed, remaining, reset, retry_after, delay =
    algorithm.step(after[key] or before[key], charge, now, charge.cost)
  say(place, allowed, remaining, reset, retry_after, delay)
  if allowed == 0 then
    refused = refused or not charge.shadow
  elseif charge.cost > 0 then
    after[key] = state
  end
end

if refused then
  for place, key in ipairs(KEYS) do
    if answer[5 * place - 4] == 1 then
      local charge = charges[place]
      local _, allowed, remaining, reset =
        algorithm_of(charge).step(before[key], charge, now, 0)
      say(place, allowed, remaining, reset, 0, 0)
    end
  end
elseif HOW == 'charge' then
  for place, key in ipairs(KEYS) do
    if after[key] then
      algorithm_of(charges[place]).write(key, after[key], charges[place])
      after[key] = nil
    end
  end
end

answer[5 * #KEYS + 1] = now
return answer
