-- progress.lua: notes how far an unfinished job is
-- KEYS: jobs side
-- ARGV: id progress
-- returns: 1 if noted, 0 if the job is not there any more
local jobs, side = KEYS[1], KEYS[2]
local id, progress = ARGV[1], ARGV[2]

if redis.call('HEXISTS', jobs, id) == 0 then return 0 end
redis.call('HSET', side, 'p:' .. id, progress)
return 1
