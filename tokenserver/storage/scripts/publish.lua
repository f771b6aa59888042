-- Append entries to the feed and move the state to the last of them. Each entry (`e`) names the one before it (`p`).
-- KEYS: state, feed, ended families…   ARGV: epoch, retention (ms), number of families, entries (JSON)…
-- Returns 1, or 0 when Redis is of another epoch: the caller must compare it with SQL first.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'feed')
if state[1] ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = state[2] or ''
for i = 4, #ARGV do
  last = redis.call('XADD', KEYS[2], '*', 'e', ARGV[i], 'p', last)
end
redis.call('XTRIM', KEYS[2], 'MINID', '~', string.format('%.0f', now - ARGV[2]))
redis.call('HSET', KEYS[1], 'feed', last)
-- An ended family stays as a tombstone for a while, so that replays of its tokens cost SQL nothing.
for i = 3, 2 + tonumber(ARGV[3]) do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.pcall('HSET', KEYS[i], 'd', '1') -- what is no family there is none for `rotate` either
  end
end
return 1
