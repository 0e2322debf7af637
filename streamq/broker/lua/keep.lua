-- keep.lua: stores finished records in a Redis of their own
-- KEYS: records
-- ARGV: batch blobs*
-- returns: how many
local records = KEYS[1]
local batch = ARGV[1]

local kept = cmsgpack.unpack(batch)
for i, entry in ipairs(kept) do
  redis.call('SET', records .. entry[1], ARGV[1 + i], 'PX', entry[2])
end
return #kept
