-- find.lua: all that is known of one job, without changing it
-- KEYS: streams records jobs due body side
-- ARGV: id
-- returns: {where, record, body, due ms or 0, consumer, idle ms, deliveries, progress, cancel reason, forgiven}
local streams, records, jobs, due, body, side = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id = ARGV[1]

local record = redis.call('GET', records .. id)
local where = redis.call('HGET', jobs, id)
local notes = redis.call('HMGET', side, 'p:' .. id, 'c:' .. id, 'f:' .. id)
local priority, entry = string.match(where or '', '^(%d):(.+)$')
local bytes, at, consumer, idle, count = false, 0, '', 0, 0
if entry then
  local found = redis.call('XRANGE', streams .. priority, entry, entry)[1]
  for n = 1, found and #found[2] or 0, 2 do
    if found[2][n] == 'j' then bytes = found[2][n + 1] end
  end
  local held = redis.pcall('XPENDING', streams .. priority, 'w', entry, entry, 1)
  if not held.err and held[1] then consumer, idle, count = held[1][2], held[1][3], held[1][4] end
elseif where then
  bytes = redis.call('HGET', body, id)
  at = tonumber(redis.call('ZSCORE', due, id)) or 0
end
return { where, record, bytes, at, consumer, idle, count, notes[1], notes[2], notes[3] }
