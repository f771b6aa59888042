-- A generic cell rate limit: `burst` at once, then one per `interval`.
-- KEYS: bucket…   ARGV: for each bucket interval (ms), burst
-- Takes one from every bucket, or nothing when one of them is empty.
-- Returns the ms to wait, 0 when it took; then for each bucket the ms until all of it is there again.
-- What isn't as it is written here counts as if it weren't there.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait, free = 0, {}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local there = redis.pcall('GET', key)
  local known = type(there) == 'string' and tonumber(there) or now
  if known ~= known then
    known = now
  end
  free[i] = math.min(math.max(known, now), now + interval * burst)
  wait = math.max(wait, free[i] + interval - now - interval * burst)
end
local reply = {math.ceil(wait)}
for i, key in ipairs(KEYS) do
  if wait <= 0 then
    free[i] = free[i] + tonumber(ARGV[2 * i - 1])
    redis.call('SET', key, string.format('%.3f', free[i]), 'PX', math.max(1, math.ceil(free[i] - now)))
  end
  reply[i + 1] = math.ceil(free[i] - now)
end
return reply
