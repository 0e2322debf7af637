-- prepare.lua: makes the streams and their groups, at 0, so that what came before is not missed
-- KEYS: streams
-- ARGV:
-- returns: 1
local streams = KEYS[1]
for priority = 0, 9 do
  -- Looked for first: a full server refuses XGROUP CREATE, even of a group that exists.
  if redis.pcall('XPENDING', streams .. priority, 'w').err then
    redis.call('XGROUP', 'CREATE', streams .. priority, 'w', '0', 'MKSTREAM')
  end
end
return 1
