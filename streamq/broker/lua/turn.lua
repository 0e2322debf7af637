-- turn.lua: settles what one worker finished and hands out what it has room for
-- KEYS: streams records jobs due body side keys dead dead_body ring
-- ARGV: now bell consumer request want lease idempotency_ttl ring_ttl batch blobs*
-- returns: {server ms, one letter a settlement (o ok, d done before, f fenced, g gone), {priority, entries, ...}}
local streams, records, jobs, due, body = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local side, keys, dead, dead_body, ring = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local now, bell, consumer, request = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local want, lease, idempotency_ttl = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local ring_ttl, batch = ARGV[8], ARGV[9]
-- @use clock
-- @use expect
-- @use place
-- @use finish
-- @use release

local at = clock(now)
local letters = ''
local blob = 9

local function next_blob()
  blob = blob + 1
  return ARGV[blob]
end

-- Which entries are still this worker's, with their delivery counts: one XPENDING over the span of the batch.
-- The span can hold more entries than asked for; whoever is not seen is looked up alone.
local function span(settlements)
  local spans = {}
  for _, s in ipairs(settlements) do
    local ms, seq = string.match(s[2], '^(%d+)-(%d+)$')
    local id = { tonumber(ms), tonumber(seq), s[2] }
    local range = spans[s[1]]
    if not range then
      spans[s[1]] = { low = id, high = id, count = 1 }
    else
      range.count = range.count + 1
      local low, high = range.low, range.high
      if id[1] < low[1] or (id[1] == low[1] and id[2] < low[2]) then range.low = id end
      if id[1] > high[1] or (id[1] == high[1] and id[2] > high[2]) then range.high = id end
    end
  end
  return spans
end

local function mine(settlements)
  local held = {}
  for priority, range in pairs(span(settlements)) do
    local found = redis.pcall(
      'XPENDING', streams .. priority, 'w', range.low[3], range.high[3], range.count * 4 + 16, consumer)
    for _, p in ipairs(found.err and {} or found) do held[priority .. ':' .. p[1]] = p[4] end
  end
  return held
end

local function fence(s, held)
  local priority, entry, count = s[1], s[2], s[3]
  local name = priority .. ':' .. entry
  local seen = held[name]
  if not seen then
    local alone = redis.pcall('XPENDING', streams .. priority, 'w', entry, entry, 1)
    if alone.err or not alone[1] then return 'g' end
    seen = alone[1][2] == consumer and alone[1][4] or -1
  end
  if seen ~= count then return 'f' end
  held[name] = -1 -- the same entry twice in one batch is settled once
  return 'o'
end

-- XACK and XDEL are the first writes: a full server refuses the first write of a script if it needs memory,
-- and these two do not.
local function acknowledge(settlements, codes)
  local gone = {}
  for i, s in ipairs(settlements) do
    if codes[i] == 'o' and s[5] ~= 'l' then
      gone[s[1]] = gone[s[1]] or {}
      table.insert(gone[s[1]], s[2])
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

function apply.f(s, ok) -- finish: state, ttl; record
  local record = next_blob()
  if ok then finish(s[4], s[6], record, s[7]) end
end

function apply.b(s, ok) -- bury: state, ttl; record, dead letter
  local record, letter = next_blob(), next_blob()
  if not ok then return end
  finish(s[4], s[6], record, s[7])
  redis.call('ZADD', dead, at, s[4])
  redis.call('HSET', dead_body, s[4], letter)
end

function apply.r(s, ok) -- run again: letter, ms; body
  local again = next_blob()
  if not ok then return end
  if sides then redis.call('HDEL', side, 'f:' .. s[4]) end
  if s[7] > 0 then delay(s[4], s[1], again, at + s[7], s[6]) else place(s[4], s[1], again) end
end

function apply.l(s, ok) -- release: forgive
  if ok then release(streams .. s[1], s[2], s[4], lease, s[6] == 1) end
end

local function settle(settlements)
  local held, codes, released = mine(settlements), {}, false
  for i, s in ipairs(settlements) do codes[i] = fence(s, held) end
  acknowledge(settlements, codes)
  for i, s in ipairs(settlements) do
    apply[s[5]](s, codes[i] == 'o')
    released = released or (s[5] == 'l' and codes[i] == 'o')
  end
  announce()
  ring_for_earlier(at)
  if released then redis.call('PUBLISH', bell, 'released') end
  return table.concat(codes)
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

if batch ~= '' then
  local before = redis.call('GET', ring)
  local last, codes = string.match(before or '', '^(%d+) (%a*)$')
  if last == request then
    letters = string.gsub(codes, 'o', 'd')
  elseif last and tonumber(last) > tonumber(request) then
    -- Sent before the newest, and late: its sender has given it up. It must neither take jobs that nobody would
    -- run, nor the place of the newest answer.
    return { at, string.rep('g', #cmsgpack.unpack(batch)), {} }
  else
    local wrong = expect(jobs, 'hash') or expect(side, 'hash') or expect(due, 'zset') or expect(body, 'hash')
      or expect(dead, 'zset') or expect(dead_body, 'hash')
    if wrong then return wrong end
    letters = settle(cmsgpack.unpack(batch))
    -- Without an `o` nothing was written: the same answer comes again, and a full server would refuse this SET.
    if string.find(letters, 'o', 1, true) then redis.call('SET', ring, request .. ' ' .. letters, 'PX', ring_ttl) end
  end
end
return { at, letters, fetch() }
