-- cancel.lua: cancels one job: a waiting one is gone, a running one is told
-- KEYS: streams records jobs due body side keys
-- ARGV: bell id reason record ttl idempotency_ttl
-- returns: cancelled, cancelling, finished or missing
local streams, records, jobs, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local body, side, keys = KEYS[5], KEYS[6], KEYS[7]
local bell, id, reason, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ttl, idempotency_ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
-- @use expect
-- @use finish

local where = redis.call('HGET', jobs, id)
if not where then return redis.call('EXISTS', records .. id) == 1 and 'finished' or 'missing' end
local wrong = expect(side, 'hash') or expect(due, 'zset') or expect(body, 'hash')
if wrong then return wrong end
local priority, entry = string.match(where, '^(%d):(.+)$')
if entry then
  local held = redis.pcall('XPENDING', streams .. priority, 'w', entry, entry, 1)
  if not held.err and held[1] and held[1][2] ~= 'nobody' then
    redis.call('HSET', side, 'c:' .. id, reason)
    redis.call('PUBLISH', bell, 'cancel ' .. id)
    return 'cancelling'
  end
  redis.pcall('XACK', streams .. priority, 'w', entry)
  redis.call('XDEL', streams .. priority, entry)
else
  redis.call('ZREM', due, id)
  redis.call('HDEL', body, id)
end
finish(id, 'CANCELLED', record, ttl)
conclude()
return 'cancelled'
