-- Put a family into Redis, in the place of what lies there.
-- KEYS: family, state
-- ARGV: epoch, MAC that the caller read there (empty: none), drop the key at (ms), field, value, …
-- Returns 1; 0 when Redis is of another epoch; 2 when somebody wrote the family meanwhile: read it again.
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then
  return 0
end
local there = redis.pcall('HMGET', KEYS[1], 'h', 'd')
local mac = there[1] and string.match(there[1], '^[%w_-]+$') or ''
if mac ~= ARGV[2] then
  return 2
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if there[2] then
  redis.call('HSET', KEYS[1], 'd', '1')
end
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1
