-- whole: quotients of whole numbers from 0 to 2^53, exactly.
--
-- Lua 5.1 counts in doubles. Its a/b rounds, so floor(a/b) may be one too many, and a % b is built
-- on it. C's fmod is exact, and so is a division without a remainder.

local fmod = math.fmod

local function down(a, b)
  return (a - fmod(a, b)) / b
end

local function up(a, b)
  local rest = fmod(a, b)
  if rest == 0 then
    return a / b
  end
  return (a - rest) / b + 1
end
