-- Lua has no rollback: a key of the wrong type must be found before the first write.
local function expect(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', streamq keeps a ' .. kind .. ' there')
  end
end
