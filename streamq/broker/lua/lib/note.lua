-- What happened to whom, for people to read: at most one entry a call. The ids count transitions, from the microsecond
-- in which the stream began: so it is trimmed by transitions, not by entries, and a large batch drives out no more than
-- as many lone ones. pcall: a full server may refuse it, and no job depends on it.
local function remember(ev, keep, transitions, at, who, fields)
  if keep <= 0 or transitions == 0 then return end
  local last = redis.pcall('XREVRANGE', ev, '+', '-', 'COUNT', 1)
  if last.err then return end
  local id = (last[1] and tonumber(string.match(last[1][1], '^%d+')) or at * 1000) + transitions
  local oldest = string.format('%.0f', math.max(0, id - keep))
  redis.pcall('XADD', ev, 'MINID', '~', oldest, string.format('%.0f-0', id), 'a', at, 'w', who, unpack(fields))
end

-- `b` holds transitions one by one: kind, job id, delivery count, detail.
local noted = {}
local function note(kind, id, count, detail)
  local n = #noted
  noted[n + 1], noted[n + 2], noted[n + 3], noted[n + 4] = kind, id, count, detail
end

local function write_notes(ev, keep, at, who)
  if #noted > 0 then remember(ev, keep, #noted / 4, at, who, { 'b', cmsgpack.pack(noted) }) end
end
