-- Put a family as SQL knows it beside what Redis knows, and keep the later of the two generations.
-- KEYS: family, state
-- ARGV: epoch, generation, rotated at (ms), drop the key at (ms), field, value, …
-- Returns 1, or 0 when Redis is of another epoch.
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then
  return 0
end
local generation, rotated_at = ARGV[2], ARGV[3]
local known = redis.call('HMGET', KEYS[1], 'g', 'r', 'd')
if known[1] and tonumber(known[1]) > tonumber(generation) then
  generation, rotated_at = known[1], known[2]
end
redis.call('HSET', KEYS[1], 'e', ARGV[1], 'g', generation, 'r', rotated_at, unpack(ARGV, 5))
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
return 1
