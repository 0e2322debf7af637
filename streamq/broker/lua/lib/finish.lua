-- The one end of every job: record, waiters, idempotency key, and no trace left elsewhere.
-- Waiters get one message per inbox and batch: frames of id and record; a large record is left to be read.
local sides = redis.call('EXISTS', side) == 1
local inboxes = {}
local ended = {}

local function finish(id, state, record, ttl)
  ended[#ended + 1] = id
  local known = sides and redis.call('HMGET', side, 'w:' .. id, 'k:' .. id)
  if known then
    redis.call('HDEL', side, 'w:' .. id, 'p:' .. id, 'c:' .. id, 'f:' .. id, 'k:' .. id)
    if known[2] then
      -- pcall: a foreign key under this name must not stop a batch that is acknowledged already.
      redis.pcall('HSET', keys .. known[2], 'state', state)
      redis.call('PEXPIRE', keys .. known[2], idempotency_ttl)
      if ttl > 0 then ttl = math.max(ttl, idempotency_ttl) end
    end
  end
  if ttl > 0 then redis.call('SET', records .. id, record, 'PX', ttl) end
  if known and known[1] then
    -- Of a job that keeps no result the waiter hears that it has ended, whenever it began to wait.
    local framed = ttl > 0 and #record <= 16384 and struct.pack('>I4', #record) .. record or struct.pack('>I4', 0)
    local frame = struct.pack('>I2', #id) .. id .. framed
    for inbox in string.gmatch(known[1], '[^,]+') do
      inboxes[inbox] = (inboxes[inbox] or '') .. frame
    end
  end
end

-- After the last job of a batch.
local function conclude()
  for first = 1, #ended, 1000 do -- Lua cannot unpack more than about 8,000 values
    redis.call('HDEL', jobs, unpack(ended, first, math.min(first + 999, #ended)))
  end
  for inbox, message in pairs(inboxes) do redis.call('PUBLISH', inbox, message) end
end
