-- enqueue.lua: adds a batch of jobs, once however often it is sent
-- KEYS: streams records jobs due body side keys ring dead dead_body
-- ARGV: now bell request ring_size ring_ttl batch bodies*
-- returns: {server ms, one letter a job (n new, d duplicate, m mismatch), the ids that stand for them}
local streams, records, jobs, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local body, side, keys, ring = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local dead, dead_body = KEYS[9], KEYS[10]
local now, bell, request = ARGV[1], ARGV[2], ARGV[3]
local ring_size, ring_ttl, batch = tonumber(ARGV[4]), ARGV[5], ARGV[6]
-- @use clock
-- @use expect
-- @use place

local at = clock(now)
local slot = tonumber(request) % ring_size
local seen = redis.call('HGET', ring, slot)
if seen then
  local answer = cmsgpack.unpack(seen)
  if answer[1] == request then
    -- A write, so that a WAIT on the connection of the second try covers what the first one wrote.
    redis.call('PEXPIRE', ring, ring_ttl)
    return { at, answer[2], answer[3] }
  end
  if tonumber(answer[1]) > tonumber(request) then
    -- Whether its first copy was carried out is not known any more. Mostly nobody waits for this one.
    return redis.error_reply('LATE more than a thousand requests were sent after this one')
  end
end

local entries = cmsgpack.unpack(batch)
local wrong = expect(jobs, 'hash') or expect(side, 'hash') or expect(due, 'zset') or expect(body, 'hash')
local checked = {}
for _, entry in ipairs(entries) do
  local priority = entry[2]
  if not wrong and not checked[priority] then
    checked[priority] = true
    wrong = expect(streams .. priority, 'stream')
  end
  if not wrong and entry[6] ~= '' then wrong = expect(keys .. entry[6], 'hash') end
  if not wrong and entry[8] then wrong = expect(dead, 'zset') or expect(dead_body, 'hash') end
end
if wrong then return wrong end

local function known(entry)
  local id, own, key, print, again = entry[1], entry[5], entry[6], entry[7], entry[8]
  if key ~= '' then
    local first = redis.call('HMGET', keys .. key, 'id', 'print', 'state')
    local failed = first[3] and first[3] ~= 'SUCCESS'
    if first[1] and not (again and failed) then
      return first[2] == print and 'd' or 'm', first[1]
    end
  end
  if own and (redis.call('HEXISTS', jobs, id) == 1 or redis.call('EXISTS', records .. id) == 1) then
    return 'd', id
  end
end

local letters, ids = {}, {}
for i, entry in ipairs(entries) do
  local id, priority, wait, key = entry[1], entry[2], entry[4], entry[6]
  local letter, original = known(entry)
  letters[i] = letter or 'n'
  if letter then
    ids[#ids + 1] = original
  else
    local start = entry[3] > 0 and entry[3] or at + wait
    if start > at then delay(id, priority, ARGV[6 + i], start, 'd') else place(id, priority, ARGV[6 + i]) end
    if key ~= '' then
      local original = entry[8] and redis.call('HGET', keys .. key, 'id')
      if original then
        -- Its dead letter is answered by this job: retried as well, the same key would run twice.
        redis.call('ZREM', dead, original)
        redis.call('HDEL', dead_body, original)
      end
      redis.call('DEL', keys .. key)
      redis.call('HSET', keys .. key, 'id', id, 'print', entry[7])
      redis.call('HSET', side, 'k:' .. id, key)
    end
  end
end
ring_for_earlier(at)
local answer = table.concat(letters)
redis.call('HSET', ring, slot, cmsgpack.pack({ request, answer, ids }))
redis.call('PEXPIRE', ring, ring_ttl)
return { at, answer, ids }
