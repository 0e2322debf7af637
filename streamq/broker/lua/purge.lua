-- purge.lua: cancels a page of jobs, those that still wait
-- KEYS: streams records jobs due body side keys ev
-- ARGV: now reason idempotency_ttl events batch ends*
-- returns: for each job 1 if it was cancelled; 0: a worker holds it, or it has ended
local streams, records, jobs, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local body, side, keys, ev = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local now, reason, idempotency_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local events, batch = tonumber(ARGV[4]), ARGV[5]
-- @use clock
-- @use expect
-- @use finish
-- @use withdraw
-- @use note

local wrong = expect(jobs, 'hash') or expect(side, 'hash') or expect(due, 'zset') or expect(body, 'hash')
if wrong then return wrong end
local answers = {}
for i, entry in ipairs(cmsgpack.unpack(batch)) do
  local id, ttl = entry[1], entry[2]
  local where = redis.call('HGET', jobs, id)
  local gone = where and not withdraw(id, where)
  if gone then
    finish(id, 'CANCELLED', ARGV[5 + i], ttl)
    note('cancelled', id, 0, reason)
  end
  answers[i] = gone and 1 or 0
end
conclude()
write_notes(ev, events, clock(now), '')
return answers
