-- The one door to the stream: whatever becomes runnable, or waits for its time, passes here.
-- `jobs` remembers where each unfinished job is: '<priority>:<entry>' in a stream, or a letter and the
-- priority among the delayed ones (d scheduled, t retry, u unknown task).
local earliest = nil

local function place(id, priority, body_bytes)
  local entry = redis.call('XADD', streams .. priority, '*', 'i', id, 'j', body_bytes)
  redis.call('HSET', jobs, id, priority .. ':' .. entry)
end

local function delay(id, priority, body_bytes, at, letter)
  if not earliest then
    local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    earliest = { known = tonumber(first[2]) or math.huge, new = math.huge }
  end
  if at < earliest.new then earliest.new = at end
  redis.call('ZADD', due, at, id)
  redis.call('HSET', body, id, body_bytes)
  redis.call('HSET', jobs, id, letter .. priority)
end

local function ring_for_earlier(at)
  if earliest and earliest.new < earliest.known then
    redis.call('PUBLISH', bell, 'due ' .. math.max(0, earliest.new - at))
  end
end
