-- sizes.lua: how much is where in one queue
-- KEYS: streams due dead
-- ARGV: now
-- returns: {server ms, scheduled, dead, then a priority: length, held, first entry or ''}
local streams, due, dead = KEYS[1], KEYS[2], KEYS[3]
local now = ARGV[1]
-- @use clock

local sizes = { clock(now), redis.call('ZCARD', due), redis.call('ZCARD', dead) }
for priority = 0, 9 do
  local stream = streams .. priority
  local length, held, first = redis.call('XLEN', stream), 0, ''
  if length > 0 then
    local pending = redis.pcall('XPENDING', stream, 'w')
    held = pending.err and 0 or pending[1]
    first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
  end
  table.insert(sizes, length)
  table.insert(sizes, held)
  table.insert(sizes, first)
end
return sizes
