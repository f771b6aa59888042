-- Spend one generation of a refresh family.
-- KEYS: family, state, rotations, events
-- ARGV: epoch and feed position that the caller knows, presented generation, grace (ms), family id,
--       what SQL's checkpoint said: `unasked`, `merged` (it was put beside what Redis knew just now) or `away`,
--       the event (JSON) of the token that goes out with the successor, most events that may wait,
--       the family's absolute end (ms since 1970) and idle lifetime (ms), MACs of the presented generation, one for
--       each secret of the ring, MAC of the generation after it, the epoch in short, as it stands in families,
--       deadline (ms since 1970): held up on its way until its caller had tried again and gone on, it would find
--       its generation long consumed, and take that for theft
-- Returns {outcome, generation}. Only `rotated`, `replayed` leave a live token: `generation`. `unverified`: what lies
-- here isn't known to be right, and nothing was done: merge SQL's checkpoint, and ask again.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = tonumber(ARGV[14])
if deadline > 0 and now > deadline then
  return {'late', 0}
end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'feed', 'began')
if state[1] ~= ARGV[1] or (state[2] or '') ~= ARGV[2] then
  return {'stale', 0}
end
if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[8]) then
  return {'full', 0}
end
-- tokens/family_hash.py
local family = redis.pcall('HMGET', KEYS[1], 's', 'd')
if not family[1] or #family[1] ~= 30 then
  return {'unverified', 0}
end
local current, rotated_at, epoch, mac = struct.unpack('>I4I6c4c16', family[1])
if epoch ~= ARGV[13] then
  return {'unverified', 0}
end
if family[2] then
  return {'ended', 0}
end
local expires_at, idle = tonumber(ARGV[9]), tonumber(ARGV[10])
if now >= expires_at or now >= rotated_at + idle then
  return {'expired', 0}
end
local presented, checkpoint = tonumber(ARGV[3]), ARGV[6]
-- A later generation is proof of lost writes, not of theft, when SQL's checkpoint was merged.
if presented > current and checkpoint ~= 'merged' then
  return {'unverified', 0}
end
-- Nobody who writes here without the ring's secrets can make the MAC of another generation.
if presented == current then
  local good = false
  for i = 1, #ARGV[11], #mac do
    good = good or string.sub(ARGV[11], i, i + #mac - 1) == mac
  end
  if not good then
    return {'unverified', 0}
  end
end
if presented >= current then
  local next_generation = presented + 1
  redis.call('HSET', KEYS[1], 's', struct.pack('>I4I6', next_generation, now) .. epoch .. ARGV[12])
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.min(expires_at, now + idle)))
  redis.call('XADD', KEYS[3], '*', 'f', ARGV[5], 'g', next_generation, 'r', string.format('%.0f', now))
  redis.call('XADD', KEYS[4], '*', 'e', ARGV[7])
  if presented > current then
    return {'fast_forwarded', next_generation}
  end
  return {'rotated', next_generation}
end
-- The grace counts from the rotation itself and a clock that jumps, either way, doesn't lengthen it. Where Redis was
-- replaced in the half minute after the rotation, the answer may have been lost with it, and nobody could ask again
-- meanwhile: it counts from the moment at which the successor was ready.
local grace = tonumber(ARGV[4])
local began = tonumber(state[3] or '0') or 0
local interrupted = rotated_at <= began and began - rotated_at < 30000
local in_grace = math.abs(now - rotated_at) < grace or (interrupted and math.abs(now - began) < grace)
if presented == current - 1 and in_grace and (checkpoint == 'merged' or mac == ARGV[12]) then
  redis.call('XADD', KEYS[4], '*', 'e', ARGV[7])
  return {'replayed', current}
end
-- It looks like theft: SQL knows better when it was consumed.
if checkpoint == 'unasked' then
  return {'unverified', 0}
end
redis.call('HSET', KEYS[1], 'd', '1')
redis.call('XADD', KEYS[3], '*', 'f', ARGV[5], 'd', '1')
return {'reused', current}
