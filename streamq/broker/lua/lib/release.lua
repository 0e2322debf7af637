-- An entry handed back keeps its place, its age and its delivery count; it belongs to nobody, idle for a whole
-- lease, so that the next sweep takes it. RETRYCOUNT is never lowered: the fence number would repeat. A delivery
-- that is to be forgiven is counted beside it instead.
local function release(stream, entry, id, lease, forgive)
  redis.call('XCLAIM', stream, 'w', 'nobody', 0, entry, 'IDLE', lease, 'JUSTID')
  if forgive and id ~= '' then redis.call('HINCRBY', side, 'f:' .. id, 1) end
end
