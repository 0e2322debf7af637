-- renew.lua: renews the leases of what a worker really holds, and says that the worker lives
-- KEYS: streams side workers worker_info
-- ARGV: now consumer alive_for info held
-- returns: {ids no longer held, ids to cancel, their reasons}
local streams, side, workers, worker_info = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, consumer, alive_for, info, held = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
-- @use clock

local lost, cancelled, reasons, kept = {}, {}, {}, {}
local holds = cmsgpack.unpack(held)
local notes = #holds > 0 and redis.call('EXISTS', side) == 1
for _, h in ipairs(holds) do
  local priority, entry, count, id = h[1], h[2], h[3], h[4]
  local stream = streams .. priority
  local found = redis.pcall('XPENDING', stream, 'w', entry, entry, 1, consumer)
  if not found.err and found[1] and found[1][4] == count then
    kept[stream] = kept[stream] or {}
    table.insert(kept[stream], entry)
    local reason = notes and redis.call('HGET', side, 'c:' .. id)
    if reason then
      cancelled[#cancelled + 1] = id
      reasons[#reasons + 1] = reason
    end
  else
    lost[#lost + 1] = id
  end
end
-- XCLAIM does not ask who owns an entry: only what was just seen to be ours is claimed again, uncounted.
for stream, entries in pairs(kept) do
  for first = 1, #entries, 1000 do
    local args = { 'XCLAIM', stream, 'w', consumer, 0, unpack(entries, first, math.min(first + 999, #entries)) }
    args[#args + 1] = 'JUSTID'
    redis.call(unpack(args))
  end
end
-- After the leases, and never in their way: a full server may refuse these two.
redis.pcall('ZADD', workers, clock(now) + alive_for, consumer)
redis.pcall('HSET', worker_info, consumer, info)
return { lost, cancelled, reasons }
