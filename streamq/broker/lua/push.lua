-- push.lua: adds jobs that ask for nothing but a place in a stream, once however often it is sent
-- KEYS: streams jobs ring
-- ARGV: now request ring_ttl jobs_flat*
-- returns: as enqueue.lua: {server ms, one letter a job (all n), no ids}
local streams, jobs, ring = KEYS[1], KEYS[2], KEYS[3]
local now, request, ring_ttl = ARGV[1], ARGV[2], ARGV[3]
-- @use clock

local at = clock(now)
local letters = string.rep('n', (#ARGV - 3) / 3) -- id, priority, body
-- The first write: a full server refuses it, and then nothing was written. Claim and question in one command.
local before = redis.call('SET', ring, request, 'PX', ring_ttl, 'GET')
if before == request then return { at, letters, {} } end
if before and tonumber(before) > tonumber(request) then
  redis.call('SET', ring, before, 'PX', ring_ttl)
  -- Whether its first copy was carried out is not known any more. Mostly nobody waits for this one.
  return redis.error_reply('LATE more than a thousand requests were sent after this one')
end

local placed, places = {}, {}

-- Lua has no rollback: what a foreign key in our place stopped half-way is taken back.
local function take_back(wrong)
  for _, each in ipairs(placed) do redis.call('XDEL', each[1], each[2]) end
  redis.call('DEL', ring)
  return wrong
end

for n = 4, #ARGV, 3 do
  local stream = streams .. ARGV[n + 1]
  local entry = redis.pcall('XADD', stream, '*', 'i', ARGV[n], 'j', ARGV[n + 2])
  if entry.err then return take_back(entry) end
  placed[#placed + 1] = { stream, entry }
  places[#places + 1] = ARGV[n]
  places[#places + 1] = ARGV[n + 1] .. ':' .. entry
end
local known = redis.pcall('HSET', jobs, unpack(places))
if type(known) == 'table' then return take_back(known) end
return { at, letters, {} }
