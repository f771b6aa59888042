-- Take or renew a lease. KEYS: lease   ARGV: holder, lifetime (ms)   Returns 1 to the holder, else 0.
-- The value says until when, so that what is no lease, or one for ever, keeps nobody out.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local there = redis.pcall('GET', KEYS[1])
if type(there) == 'string' then
  local holder, ends = string.match(there, '^(%x+) (%d+)$')
  local left = (tonumber(ends) or now) - now
  if holder ~= ARGV[1] and left > 0 and left <= tonumber(ARGV[2]) then
    return 0
  end
end
redis.call('SET', KEYS[1], string.format('%s %.0f', ARGV[1], now + ARGV[2]), 'PX', ARGV[2])
return 1
