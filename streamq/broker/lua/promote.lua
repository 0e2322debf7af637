-- promote.lua: moves delayed jobs whose time has come onto the stream, a bounded number at a time
-- KEYS: streams jobs due body
-- ARGV: now limit
-- returns: {moved, ms until the next is due or -1}
local streams, jobs, due, body = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, limit = ARGV[1], ARGV[2]
-- @use clock
-- @use expect
-- @use place

local at = clock(now)
local ids = redis.call('ZRANGE', due, '-inf', at, 'BYSCORE', 'LIMIT', 0, limit)
if #ids > 0 then
  local places = redis.call('HMGET', jobs, unpack(ids))
  local bodies = redis.call('HMGET', body, unpack(ids))
  -- A stream of the wrong type found half-way would leave the jobs before it both placed and due, at each call.
  local wrong
  for i = 1, #ids do
    if not wrong and places[i] then wrong = expect(streams .. string.sub(places[i], 2), 'stream') end
  end
  if wrong then return wrong end
  for i, id in ipairs(ids) do
    if places[i] and bodies[i] then place(id, string.sub(places[i], 2), bodies[i]) end
  end
  redis.call('ZREM', due, unpack(ids))
  redis.call('HDEL', body, unpack(ids))
end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return { #ids, first[2] and math.max(0, first[2] - at) or -1 }
