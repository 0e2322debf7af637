-- tidy.lua: removes the consumers of dead workers once their entries were taken over
-- KEYS: streams workers worker_info
-- ARGV: now
-- returns: how many went
local streams, workers, worker_info = KEYS[1], KEYS[2], KEYS[3]
local now = ARGV[1]
-- @use clock
-- @use depart

local gone = 0
for _, consumer in ipairs(redis.call('ZRANGE', workers, '-inf', clock(now), 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('HDEL', worker_info, consumer)
  if depart(consumer) then
    redis.call('ZREM', workers, consumer)
    gone = gone + 1
  end
end
depart('nobody')
return gone
