-- promote.lua: moves delayed jobs whose time has come onto the stream, a bounded number at a time
-- KEYS: streams jobs due body ev
-- ARGV: now limit events
-- returns: {moved, ms until the next is due or -1}
local streams, jobs, due, body, ev = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local now, limit, events = ARGV[1], ARGV[2], tonumber(ARGV[3])
-- @use clock
-- @use expect
-- @use place
-- @use note

local function first() return tonumber(redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]) end

local soonest = first()
if not soonest then return { 0, -1 } end -- most looks end here: not even the time is asked
local at = clock(now)
local ids = soonest <= at and redis.call('ZRANGE', due, '-inf', at, 'BYSCORE', 'LIMIT', 0, limit) or {}
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
    if places[i] and bodies[i] then
      place(id, string.sub(places[i], 2), bodies[i])
      note('due', id, 0, '')
    end
  end
  redis.call('ZREM', due, unpack(ids))
  redis.call('HDEL', body, unpack(ids))
  write_notes(ev, events, at, '')
  soonest = first()
end
return { #ids, soonest and math.max(0, soonest - at) or -1 }
