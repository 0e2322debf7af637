-- reclaim.lua: the sweep: takes over entries whose lease has run out
-- KEYS: streams side
-- ARGV: consumer lease want suspects quiet cursors*
-- returns: {{priority, entry id, fields, deliveries, forgiven}, ...}, then the ten next cursors
local streams, side = KEYS[1], KEYS[2]
local consumer, lease, want, suspects = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local quiet = ARGV[5]
-- @use field
-- @use release

-- XAUTOCLAIM with JUSTID takes an entry without counting a delivery; what may not start here yet goes back
-- uncounted. A suspect (two crashes) starts only where no other suspect runs, so that it dies alone.
local taken, cursors = {}, {}
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
end

for priority = 9, 0, -1 do
  local stream = streams .. priority
  local cursor = ARGV[6 + priority]
  if #taken < want and redis.call('XLEN', stream) > 0 then
    -- What was given back belongs to nobody, whatever its idle time says.
    local given = redis.pcall('XPENDING', stream, 'w', '-', '+', want, 'nobody')
    for _, p in ipairs(given.err and {} or given) do
      if #taken < want then consider(priority, stream, p[1]) end
    end
    -- In the quiet time after a server's absence the idle times of the others cannot be believed.
    local swept = { err = 'quiet' }
    if quiet == '0' and #taken < want then
      swept = redis.pcall('XAUTOCLAIM', stream, 'w', consumer, lease, cursor, 'COUNT', want - #taken, 'JUSTID')
    end
    if not swept.err then
      cursor = swept[1]
      for _, entry in ipairs(swept[2]) do consider(priority, stream, entry) end
    end
  end
  cursors[priority + 1] = cursor
end
return { taken, cursors }
