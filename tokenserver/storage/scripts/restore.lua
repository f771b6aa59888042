-- Put a family into Redis, in the place of what lies there.
-- KEYS: family, state
-- ARGV: epoch, MAC that the caller read there (empty: none), drop the key at (ms), fields `s` and `f`
-- Returns 1; 0 when Redis is of another epoch; 2 when somebody wrote the family meanwhile: read it again.
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then
  return 0
end
local there = redis.pcall('HMGET', KEYS[1], 's', 'd')
local mac = there[1] and #there[1] == 30 and string.sub(there[1], 15) or ''
if mac ~= ARGV[2] then
  return 2
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 's', ARGV[4], 'f', ARGV[5])
if there[2] then
  redis.call('HSET', KEYS[1], 'd', '1')
end
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1
