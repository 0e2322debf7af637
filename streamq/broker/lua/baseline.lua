-- baseline.lua: the last occurrence of each schedule; a schedule seen for the first time begins now
-- KEYS: cron
-- ARGV: now names*
-- returns: epoch ms a name
local cron = KEYS[1]
local now = ARGV[1]
-- @use clock

local at = clock(now)
local last = {}
for i = 2, #ARGV do
  redis.call('HSETNX', cron, ARGV[i], string.format('%.0f', at))
  last[i - 1] = tonumber(redis.call('HGET', cron, ARGV[i]))
end
return last
