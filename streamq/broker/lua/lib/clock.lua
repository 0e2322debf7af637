-- The server's time in ms, unless the caller travels in time (only the testing clock does).
local function clock(now)
  if now ~= '' then return tonumber(now) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
