-- resume.lua: the jobs of this queue may be taken again
-- KEYS: paused
-- ARGV: bell
-- returns: 1 if it was paused
local paused = KEYS[1]
local bell = ARGV[1]

local was = redis.call('DEL', paused)
redis.call('PUBLISH', bell, 'resumed') -- even if it was not: a worker may have missed it the first time
return was
