-- leave.lua: a worker that runs nothing any more says goodbye
-- KEYS: streams side workers worker_info ring ring2
-- ARGV: consumer lease bell hand_back
-- returns: how many entries it still held
local streams, side, workers, worker_info, ring, ring2 = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local consumer, lease, bell, hand_back = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- @use field
-- @use release
-- @use depart

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
      release(stream, p[1], found and field(found[2], 'i') or '', lease, found ~= nil)
    end
  end
end
if held > 0 then redis.call('PUBLISH', bell, 'released') end
redis.call('HDEL', worker_info, consumer)
redis.call('DEL', ring, ring2)
if depart(consumer) then
  redis.call('ZREM', workers, consumer)
else
  redis.call('ZADD', workers, 0, consumer)
end
return held
