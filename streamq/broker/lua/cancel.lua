-- cancel.lua: cancels one job: a waiting one is gone, a running one is told
-- KEYS: streams records jobs due body side keys ev
-- ARGV: now bell id reason record ttl idempotency_ttl events
-- returns: cancelled, cancelling, finished or missing
local streams, records, jobs, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local body, side, keys, ev = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local now, bell, id, reason, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ttl, idempotency_ttl, events = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
-- @use clock
-- @use expect
-- @use finish
-- @use withdraw
-- @use note

local where = redis.call('HGET', jobs, id)
if not where then return redis.call('EXISTS', records .. id) == 1 and 'finished' or 'missing' end
local wrong = expect(side, 'hash') or expect(due, 'zset') or expect(body, 'hash')
if wrong then return wrong end
local held = withdraw(id, where)
if held then
  redis.call('HSET', side, 'c:' .. id, reason)
  redis.call('PUBLISH', bell, 'cancel ' .. id)
  note('cancelling', id, held[4], reason)
  write_notes(ev, events, clock(now), '')
  return 'cancelling'
end
finish(id, 'CANCELLED', record, ttl)
conclude()
note('cancelled', id, 0, reason)
write_notes(ev, events, clock(now), '')
return 'cancelled'
