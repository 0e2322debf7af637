-- reclaim.lua: the sweep: takes over entries whose lease has run out
-- KEYS: streams side paused ev
-- ARGV: now consumer lease want suspects quiet everywhere events cursors*
-- returns: {{priority, entry id, fields, deliveries, forgiven}, ...}, then the ten next cursors (empty: nothing is
--   pending there, and the next sweep that is not everywhere leaves it out)
local streams, side, paused, ev = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, consumer, lease, want, suspects = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local quiet, everywhere, events = ARGV[6], ARGV[7], tonumber(ARGV[8])
-- @use clock
-- @use field
-- @use release
-- @use note

-- XAUTOCLAIM with JUSTID takes an entry without counting a delivery; what may not start here yet goes back
-- uncounted. A suspect (two crashes) starts only where no other suspect runs, so that it dies alone.
local taken, cursors = {}, { unpack(ARGV, 9) }
if redis.call('EXISTS', paused) == 1 then return { taken, cursors } end
local function consider(priority, stream, entry)
  local held = redis.call('XPENDING', stream, 'w', entry, entry, 1)[1]
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  if not held or not found then return end
  local id = field(found[2], 'i') or ''
  local forgiven = tonumber(redis.call('HGET', side, 'f:' .. id)) or 0
  local suspect = held[4] - forgiven >= 2
  if suspect and suspects <= 0 then
    release(stream, entry, id, lease, false)
    return
  end
  if suspect then suspects = suspects - 1 end
  redis.call('XCLAIM', stream, 'w', consumer, 0, entry)
  taken[#taken + 1] = { priority, entry, found[2], held[4] + 1, forgiven }
  note('claimed', id, held[4] + 1, held[2] == 'nobody' and '' or lease)
end

if everywhere == '1' then
  -- One command instead of ten: which streams are not empty.
  local read = { 'XREAD', 'COUNT', 1, 'STREAMS' }
  for priority = 0, 9 do read[5 + priority], read[15 + priority] = streams .. priority, '0' end
  for _, found in ipairs(redis.call(unpack(read)) or {}) do
    local n = tonumber(string.sub(found[1], -1)) + 1
    if cursors[n] == '' then cursors[n] = '0-0' end
  end
end

for priority = 9, 0, -1 do
  local stream = streams .. priority
  local cursor = cursors[priority + 1]
  local pending = cursor ~= '' and #taken < want and redis.pcall('XPENDING', stream, 'w')
  if pending and (pending.err or pending[1] == 0) then
    cursor = ''
  elseif pending then
    -- What was given back belongs to nobody, whatever its idle time says.
    for _, p in ipairs(redis.call('XPENDING', stream, 'w', '-', '+', want, 'nobody')) do
      if #taken < want then consider(priority, stream, p[1]) end
    end
    -- In the quiet time after a server's absence the idle times of the others cannot be believed.
    if quiet == '0' and #taken < want then
      local swept = redis.call('XAUTOCLAIM', stream, 'w', consumer, lease, cursor, 'COUNT', want - #taken, 'JUSTID')
      cursor = swept[1]
      for _, entry in ipairs(swept[2]) do consider(priority, stream, entry) end
    end
  end
  cursors[priority + 1] = cursor
end
if #taken > 0 then write_notes(ev, events, clock(now), consumer) end
return { taken, cursors }
