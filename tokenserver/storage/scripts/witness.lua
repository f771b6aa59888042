-- Append events if the feed stands where the caller knows it.
-- KEYS: state, events   ARGV: epoch and feed position that the caller knows, most events that may wait, events (JSON)…
-- Returns 'ok', 'stale' or 'full'. The epoch '*' asks for no comparison.
if ARGV[1] ~= '*' then
  local state = redis.call('HMGET', KEYS[1], 'epoch', 'feed')
  if state[1] ~= ARGV[1] or (state[2] or '') ~= ARGV[2] then
    return 'stale'
  end
end
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[3]) then
  return 'full'
end
for i = 4, #ARGV do
  redis.call('XADD', KEYS[2], '*', 'e', ARGV[i])
end
return 'ok'
