-- pause.lua: nobody may take jobs of this queue until it is resumed
-- KEYS: paused
-- ARGV: now bell reason
-- returns: since when, in ms
local paused = KEYS[1]
local now, bell, reason = ARGV[1], ARGV[2], ARGV[3]
-- @use clock

redis.call('HSETNX', paused, 'since', clock(now))
if reason ~= '' then redis.call('HSET', paused, 'reason', reason) end
redis.call('PUBLISH', bell, 'paused')
return tonumber(redis.call('HGET', paused, 'since'))
