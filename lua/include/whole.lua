-- whole: quotients of whole numbers from 0 to 2^53, exactly, though Lua 5.1 counts in doubles.
--
-- Where a/b is not whole, it is 1/b or more away from every whole number k beside it, and rounding
-- moves it by k/2^53 at most. As k*b stays below 2^53 + b, that is never as far as k: floor, ceil
-- and % are those of the exact quotient.

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local function down(a, b)
  return floor(a / b)
end

local function up(a, b)
  return ceil(a / b)
end
