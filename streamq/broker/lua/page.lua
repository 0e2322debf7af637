-- page.lua: a page of the jobs in the streams of one queue: those that wait, or those that a worker holds
-- KEYS: streams side
-- ARGV: held priority after count
-- returns: {next priority or -1, next after, {{priority, id, body, consumer, idle ms, deliveries, progress,
--   cancel reason, forgiven}, ...}}
local streams, side = KEYS[1], KEYS[2]
local held, priority, after, count = ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
-- @use field

local rows, left = {}, count
local sides = redis.call('EXISTS', side) == 1

local function add(fields, p)
  local id = field(fields, 'i')
  if not id then return end -- not written by streamq
  local notes = sides and redis.call('HMGET', side, 'p:' .. id, 'c:' .. id, 'f:' .. id) or {}
  rows[#rows + 1] = {
    priority, id, field(fields, 'j') or '', p and p[2] or '', p and p[3] or 0, p and p[4] or 0,
    notes[1] or false, notes[2] or false, notes[3] or false,
  }
end

local function begin() return after == '' and '-' or '(' .. after end

-- What was given back belongs to `nobody`, and waits. Each looks at `left` entries, and says at which ones.
local function waiting(stream)
  local entries = redis.call('XRANGE', stream, begin(), '+', 'COUNT', left)
  if #entries == 0 then return entries end
  local pending = redis.pcall('XPENDING', stream, 'w', entries[1][1], entries[#entries][1], #entries)
  local known = {}
  for _, p in ipairs(pending.err and {} or pending) do known[p[1]] = p end
  for _, entry in ipairs(entries) do
    local p = known[entry[1]]
    if not p or p[2] == 'nobody' then add(entry[2], p) end
  end
  return entries
end

local function running(stream)
  local pending = redis.pcall('XPENDING', stream, 'w', begin(), '+', left)
  if pending.err then return {} end
  for _, p in ipairs(pending) do
    local entry = p[2] ~= 'nobody' and redis.call('XRANGE', stream, p[1], p[1])[1]
    if entry then add(entry[2], p) end
  end
  return pending
end

while priority >= 0 and left > 0 do
  local seen = (held and running or waiting)(streams .. priority)
  if #seen < left then
    priority, after = priority - 1, ''
  else
    after = seen[#seen][1]
  end
  left = left - #seen
end
return { priority, after, rows }
