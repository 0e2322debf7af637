-- resume_schedule.lua: the occurrences from now on are fired; what fell due before is not made up for
-- KEYS: cron_paused
-- ARGV: now name
-- returns: 1 if it was paused, else 0
local cron_paused = KEYS[1]
local now, name = ARGV[1], ARGV[2]
-- @use clock

if redis.call('HEXISTS', cron_paused, 'p:' .. name) == 0 then return 0 end
redis.call('HSET', cron_paused, 'r:' .. name, string.format('%.0f', clock(now)))
redis.call('HDEL', cron_paused, 'p:' .. name)
return 1
