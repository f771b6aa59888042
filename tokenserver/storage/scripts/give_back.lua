-- Return what `take` took. KEYS: bucket…   ARGV: for each bucket interval (ms), or 0 to forget all that was taken
for i, key in ipairs(KEYS) do
  if ARGV[i] == '0' then
    redis.call('DEL', key)
  else
    local there = redis.pcall('GET', key)
    local free = type(there) == 'string' and tonumber(there)
    if free then
      redis.call('SET', key, string.format('%.3f', free - ARGV[i]), 'KEEPTTL')
    end
  end
end
return 0
