-- Deleting a consumer deletes what it holds: only one with an empty list of pending entries may go.
local function depart(consumer)
  local held = 0
  for priority = 0, 9 do
    local pending = redis.pcall('XPENDING', streams .. priority, 'w', '-', '+', 1, consumer)
    if not pending.err and pending[1] then held = held + 1 end
  end
  if held > 0 then return false end
  for priority = 0, 9 do redis.pcall('XGROUP', 'DELCONSUMER', streams .. priority, 'w', consumer) end
  return true
end
