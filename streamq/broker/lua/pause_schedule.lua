-- pause_schedule.lua: from now on no occurrence of this schedule is fired
-- KEYS: cron_paused
-- ARGV: now name
-- returns: since when it is paused, epoch ms
local cron_paused = KEYS[1]
local now, name = ARGV[1], ARGV[2]
-- @use clock

redis.call('HSETNX', cron_paused, 'p:' .. name, string.format('%.0f', clock(now)))
return tonumber(redis.call('HGET', cron_paused, 'p:' .. name))
