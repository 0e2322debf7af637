-- hasten.lua: a job that waits for its time is due now
-- KEYS: due ev
-- ARGV: now bell id events
-- returns: 1 if it waits for its time, 0 if not
local due, ev = KEYS[1], KEYS[2]
local now, bell, id, events = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- @use clock
-- @use note

local time = redis.call('ZSCORE', due, id)
if not time then return 0 end
local at = clock(now)
if tonumber(time) > at then
  redis.call('ZADD', due, at, id)
  note('hastened', id, 0, '')
  write_notes(ev, events, at, '')
end
redis.call('PUBLISH', bell, 'due 0')
return 1
