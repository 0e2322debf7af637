-- baseline.lua: where each schedule goes on: after its last occurrence, after its pause, or now if it is new or paused
-- KEYS: cron cron_paused
-- ARGV: now names*
-- returns: epoch ms a name
local cron, cron_paused = KEYS[1], KEYS[2]
local now = ARGV[1]
-- @use clock

local at = clock(now)
local last = {}
for i = 2, #ARGV do
  redis.call('HSETNX', cron, ARGV[i], string.format('%.0f', at))
  local pause = redis.call('HMGET', cron_paused, 'p:' .. ARGV[i], 'r:' .. ARGV[i])
  last[i - 1] = pause[1] and at or math.max(tonumber(redis.call('HGET', cron, ARGV[i])), tonumber(pause[2] or 0))
end
return last
