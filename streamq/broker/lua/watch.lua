-- watch.lua: registers one client's inbox for the ends of many jobs
-- KEYS: records jobs side
-- ARGV: inbox ids*
-- returns: for each id its record if it has finished, 1 if it will be told, 0 if there is no such job
local records, jobs, side = KEYS[1], KEYS[2], KEYS[3]
local inbox = ARGV[1]

local answers = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local record = redis.call('GET', records .. id)
  if record then
    answers[i - 1] = record
  elseif redis.call('HEXISTS', jobs, id) == 0 then
    answers[i - 1] = 0
  else
    local waiting = redis.call('HGET', side, 'w:' .. id)
    if not waiting then
      redis.pcall('HSET', side, 'w:' .. id, inbox) -- a full server may refuse: the waiter reads again by itself
    elseif not string.find(',' .. waiting .. ',', ',' .. inbox .. ',', 1, true) then
      redis.pcall('HSET', side, 'w:' .. id, waiting .. ',' .. inbox)
    end
    answers[i - 1] = 1
  end
end
return answers
