-- sizes.lua: how much is where in one queue
-- KEYS: streams due dead paused
-- ARGV: now
-- returns: {server ms, scheduled, dead, paused since ms or 0, why, then a priority: length, held, first entry or ''}
local streams, due, dead, paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now = ARGV[1]
-- @use clock

local stop = redis.call('HMGET', paused, 'since', 'reason')
local sizes = { clock(now), redis.call('ZCARD', due), redis.call('ZCARD', dead) }
sizes[4], sizes[5] = tonumber(stop[1] or 0), stop[2] or ''
for priority = 0, 9 do
  local stream = streams .. priority
  local length, held, first = redis.call('XLEN', stream), 0, ''
  if length > 0 then
    local pending = redis.pcall('XPENDING', stream, 'w')
    held = pending.err and 0 or pending[1]
    for _, each in ipairs(held > 0 and pending[4] or {}) do
      if each[1] == 'nobody' then held = held - each[2] end -- given back: it waits
    end
    first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
  end
  table.insert(sizes, length)
  table.insert(sizes, held)
  table.insert(sizes, first)
end
return sizes
