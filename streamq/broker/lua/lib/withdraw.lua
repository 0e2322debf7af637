-- Takes a job that waits at `where` out of its stream, or from among the delayed ones. One that a worker holds stays
-- where it is: then its row in the list of pending entries is returned.
local function withdraw(id, where)
  local priority, entry = string.match(where, '^(%d):(.+)$')
  if not entry then
    redis.call('ZREM', due, id)
    redis.call('HDEL', body, id)
    return nil
  end
  local held = redis.pcall('XPENDING', streams .. priority, 'w', entry, entry, 1)
  if not held.err and held[1] and held[1][2] ~= 'nobody' then return held[1] end
  redis.pcall('XACK', streams .. priority, 'w', entry)
  redis.call('XDEL', streams .. priority, entry)
end
