-- Return what `take` took. KEYS: bucket…   ARGV: for each bucket interval (ms)
for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    redis.call('DECRBY', key, ARGV[i])
  end
end
return 0
