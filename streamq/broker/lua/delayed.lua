-- delayed.lua: a page of the jobs that wait for their time, by due time
-- KEYS: jobs due body side
-- ARGV: last score count letters
-- returns: {last id or '', its score, {{id, due ms, where, body, progress}, ...}}
local jobs, due, body, side = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local last, score, count, letters = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

-- Behind the last one of the page before. If that has gone, nobody knows how many of its time have, and some of those
-- come again: no rank and no time alone would find all that stay while others leave.
local rank = redis.call('ZRANK', due, last)
local from = rank and rank + 1 or redis.call('ZCOUNT', due, '-inf', '(' .. score)
local found = redis.call('ZRANGE', due, from, from + count - 1, 'WITHSCORES')
local rows = {}
for n = 1, #found, 2 do
  local id = found[n]
  local where = redis.call('HGET', jobs, id) or ''
  if where ~= '' and string.find(letters, string.sub(where, 1, 1), 1, true) then
    local progress = redis.call('HGET', side, 'p:' .. id)
    rows[#rows + 1] = { id, tonumber(found[n + 1]), where, redis.call('HGET', body, id) or '', progress }
  end
end
return { found[#found - 1] or '', found[#found] or '', rows }
