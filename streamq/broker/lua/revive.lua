-- revive.lua: puts dead letters back onto their queue
-- KEYS: streams records jobs due body dead dead_body ev
-- ARGV: now bell events batch bodies*
-- returns: how many were still there
local streams, records, jobs, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local body, dead, dead_body, ev = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local now, bell, events, batch = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- @use clock
-- @use expect
-- @use place
-- @use note

local wrong = expect(dead_body, 'hash')
if wrong then return wrong end
local revived = 0
for i, entry in ipairs(cmsgpack.unpack(batch)) do
  local id, priority = entry[1], entry[2]
  if redis.call('ZSCORE', dead, id) and redis.call('HEXISTS', jobs, id) == 0 then
    place(id, priority, ARGV[4 + i])
    note('revived', id, 0, '')
    redis.call('ZREM', dead, id)
    redis.call('HDEL', dead_body, id)
    redis.call('DEL', records .. id)
    revived = revived + 1
  end
end
write_notes(ev, events, clock(now), '')
return revived
