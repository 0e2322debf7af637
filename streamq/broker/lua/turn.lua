-- turn.lua: settles what one worker finished and hands out what it has room for
-- KEYS: streams records jobs due body side keys dead dead_body ring paused ev
-- ARGV: now bell consumer request want lease idempotency_ttl ring_ttl events heard batch blobs*
-- returns: {server ms, one letter a settlement (o ok, d done before, f fenced, g gone), {priority, entries, ...},
--   1 if the queue is paused}
local streams, records, jobs, due, body = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local side, keys, dead, dead_body, ring = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local paused, ev = KEYS[11], KEYS[12]
local now, bell, consumer, request = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local want, lease, idempotency_ttl = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local ring_ttl, events, heard, batch = ARGV[8], tonumber(ARGV[9]), ARGV[10], ARGV[11]
-- @use clock
-- @use expect
-- @use place
-- @use finish
-- @use release
-- @use note

local at = clock(now)
local letters = ''
local blob = 11

local function next_blob()
  blob = blob + 1
  return ARGV[blob]
end

-- A batch is flat, seven values a settlement: priority, entry, delivery count, job id, kind, and two of the kind's
-- own. A table each would cost more than all the rest of a no-op job.
local PRIORITY, ENTRY, COUNT, ID, KIND, FIRST, SECOND, SIZE = 0, 1, 2, 3, 4, 5, 6, 7

-- Which entries are still this worker's, with their delivery counts: one XPENDING over the span of the batch, in
-- whole milliseconds. It can hold more entries than asked for; whoever is not seen is looked up alone.
local function spans(b)
  local found = {}
  for n = 1, #b, SIZE do
    local entry, span = b[n + ENTRY], found[b[n + PRIORITY]]
    if not span then
      found[b[n + PRIORITY]] = { low = entry, high = entry, count = 1 }
    else
      span.count = span.count + 1
      -- Compared as text: the milliseconds have 13 digits until the year 2286, what follows does not matter.
      if entry < span.low then span.low = entry elseif entry > span.high then span.high = entry end
    end
  end
  return found
end

local function mine(b)
  local held = {}
  for priority, span in pairs(spans(b)) do
    local low, high = string.match(span.low, '^%d+'), string.match(span.high, '^%d+')
    local found = redis.pcall('XPENDING', streams .. priority, 'w', low, high, span.count * 4 + 16, consumer)
    local counts = {}
    for _, p in ipairs(found.err and {} or found) do counts[p[1]] = p[4] end
    held[priority] = counts
  end
  return held
end

local function fence(b, n, held)
  local priority, entry = b[n + PRIORITY], b[n + ENTRY]
  local seen = held[priority][entry]
  if not seen then
    local alone = redis.pcall('XPENDING', streams .. priority, 'w', entry, entry, 1)
    if alone.err or not alone[1] then return 'g' end
    seen = alone[1][2] == consumer and alone[1][4] or -1
  end
  if seen ~= b[n + COUNT] then return 'f' end
  held[priority][entry] = -1 -- the same entry twice in one batch is settled once
  return 'o'
end

-- XACK and XDEL are the first writes: a full server refuses the first write of a script if it needs memory,
-- and these two do not.
local function acknowledge(b, codes)
  local gone = {}
  for n = 1, #b, SIZE do
    if codes[(n - 1) / SIZE + 1] == 'o' and b[n + KIND] ~= 'l' then
      local priority = b[n + PRIORITY]
      local entries = gone[priority] or {}
      gone[priority] = entries
      entries[#entries + 1] = b[n + ENTRY]
    end
  end
  for priority, entries in pairs(gone) do
    for first = 1, #entries, 1000 do -- Lua cannot unpack more than about 8,000 values
      local last = math.min(first + 999, #entries)
      redis.call('XACK', streams .. priority, 'w', unpack(entries, first, last))
      redis.call('XDEL', streams .. priority, unpack(entries, first, last))
    end
  end
end

local apply = {}

function apply.f(b, n, ok) -- finish: state, ttl; record
  local record = next_blob()
  if ok then finish(b[n + ID], b[n + FIRST], record, b[n + SECOND]) end
end

function apply.b(b, n, ok) -- bury: state, ttl; record, dead letter
  local record, letter, id = next_blob(), next_blob(), b[n + ID]
  if not ok then return end
  finish(id, b[n + FIRST], record, b[n + SECOND])
  redis.call('ZADD', dead, at, id)
  redis.call('HSET', dead_body, id, letter)
end

function apply.r(b, n, ok) -- run again: letter, ms; body
  local again, id, priority, wait = next_blob(), b[n + ID], b[n + PRIORITY], b[n + SECOND]
  if not ok then return end
  if sides then redis.call('HDEL', side, 'f:' .. id) end
  if wait > 0 then delay(id, priority, again, at + wait, b[n + FIRST]) else place(id, priority, again) end
end

function apply.l(b, n, ok) -- release: forgive
  if ok then release(streams .. b[n + PRIORITY], b[n + ENTRY], b[n + ID], lease, b[n + FIRST] == 1) end
end

local function settle(b)
  local held, codes, released = mine(b), {}, false
  for n = 1, #b, SIZE do codes[#codes + 1] = fence(b, n, held) end
  acknowledge(b, codes)
  for i, code in ipairs(codes) do
    local n, ok = (i - 1) * SIZE + 1, code == 'o'
    local kind = b[n + KIND]
    apply[kind](b, n, ok)
    released = released or (kind == 'l' and ok)
  end
  conclude()
  ring_for_earlier(at)
  if released then redis.call('PUBLISH', bell, 'released') end
  return table.concat(codes)
end

-- What this turn did goes into the queue's history, in the order in which it happened: the ids that a blocking read
-- brought before, the batch as it came with its answers, the ids that were handed out now.
local function write_turn(settled, taken)
  local fields, transitions, ids = {}, 0, {}
  local function tell(many, ...)
    transitions = transitions + many
    for _, each in ipairs({ ... }) do fields[#fields + 1] = each end
  end
  for n = 2, #taken, 2 do
    for _, entry in ipairs(taken[n]) do
      local name, id = entry[2][1], entry[2][2]
      if name == 'i' and #id <= 128 then ids[#ids + 1] = id end
    end
  end
  if heard ~= '' then tell(select(2, string.gsub(heard, '%S+', '')), 'h', heard) end
  if settled ~= '' then tell(#settled, 's', batch, 'c', settled) end
  if #ids > 0 then tell(#ids, 'f', table.concat(ids, ' ')) end
  remember(ev, events, transitions, at, consumer, fields)
end

local function fetch()
  local taken, left = {}, want
  for priority = 9, 0, -1 do
    local stream = streams .. priority
    if left > 0 and redis.call('XLEN', stream) > 0 then
      local read = redis.pcall('XREADGROUP', 'GROUP', 'w', consumer, 'COUNT', left, 'STREAMS', stream, '>')
      if read and read.err then
        -- Flushed, or made by a producer before any worker came: the group begins at 0, so nothing is missed.
        redis.call('XGROUP', 'CREATE', stream, 'w', '0')
        read = redis.call('XREADGROUP', 'GROUP', 'w', consumer, 'COUNT', left, 'STREAMS', stream, '>')
      end
      if read then
        taken[#taken + 1] = priority
        taken[#taken + 1] = read[1][2]
        left = left - #read[1][2]
      end
    end
  end
  return taken
end

local settled = ''
if batch ~= '' then
  local before = redis.call('GET', ring)
  local last, codes = string.match(before or '', '^(%d+) (%a*)$')
  if last == request then
    letters = string.gsub(codes, 'o', 'd')
  elseif last and tonumber(last) > tonumber(request) then
    -- Sent before the newest, and late: its sender has given it up. It must neither take jobs that nobody would
    -- run, nor the place of the newest answer.
    return { at, string.rep('g', #cmsgpack.unpack(batch) / SIZE), {}, 0 }
  else
    local wrong = expect(jobs, 'hash') or expect(side, 'hash') or expect(due, 'zset') or expect(body, 'hash')
      or expect(dead, 'zset') or expect(dead_body, 'hash')
    if wrong then return wrong end
    letters = settle(cmsgpack.unpack(batch))
    settled = letters
    -- Without an `o` nothing was written: the same answer comes again, and a full server would refuse this SET.
    if string.find(letters, 'o', 1, true) then redis.call('SET', ring, request .. ' ' .. letters, 'PX', ring_ttl) end
  end
end
local waits = want > 0 and redis.call('EXISTS', paused) or 0
local taken = want > 0 and waits == 0 and fetch() or {}
if events > 0 then write_turn(settled, taken) end
return { at, letters, taken, waits }
