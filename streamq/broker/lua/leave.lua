-- leave.lua: a worker that runs nothing any more says goodbye
-- KEYS: streams side workers worker_info ring ring2 ev
-- ARGV: now consumer lease bell hand_back events
-- returns: how many entries it still held
local streams, side, workers, worker_info = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ring, ring2, ev = KEYS[5], KEYS[6], KEYS[7]
local now, consumer, lease, bell, hand_back = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local events = tonumber(ARGV[6])
-- @use clock
-- @use field
-- @use release
-- @use depart
-- @use note

-- What is left was handed out to a read that this worker gave up when it stopped: nobody ever started it. Unless
-- something is left running that could not be stopped; then its lease has to run out first.
local held = 0
for priority = 0, 9 do
  local stream = streams .. priority
  local pending = redis.pcall('XPENDING', stream, 'w', '-', '+', 1000, consumer)
  for _, p in ipairs(pending.err and {} or pending) do
    held = held + 1
    if hand_back == '1' then
      local found = redis.call('XRANGE', stream, p[1], p[1])[1]
      local id = found and field(found[2], 'i') or ''
      release(stream, p[1], id, lease, found ~= nil)
      note('released', id, p[4], '')
    end
  end
end
if held > 0 then redis.call('PUBLISH', bell, 'released') end
write_notes(ev, events, clock(now), consumer)
redis.call('HDEL', worker_info, consumer)
redis.call('DEL', ring, ring2)
if depart(consumer) then
  redis.call('ZREM', workers, consumer)
else
  redis.call('ZADD', workers, 0, consumer)
end
return held
