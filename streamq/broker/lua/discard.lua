-- discard.lua: forgets dead letters
-- KEYS: dead dead_body
-- ARGV: ids*
-- returns: how many were there
local dead, dead_body = KEYS[1], KEYS[2]
redis.call('HDEL', dead_body, unpack(ARGV))
return redis.call('ZREM', dead, unpack(ARGV))
