-- A generic cell rate limit: `burst` at once, then one per `interval`.
-- KEYS: bucket…   ARGV: for each bucket interval (ms), burst
-- Takes one from every bucket and returns 0, or takes nothing and returns the ms to wait.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full = {}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local at = math.max(tonumber(redis.call('GET', key) or now), now) + interval
  local wait = at - now - interval * burst
  if wait > 0 then
    return math.ceil(wait)
  end
  full[i] = at
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.0f', full[i]), 'PX', string.format('%.0f', math.max(1, full[i] - now)))
end
return 0
