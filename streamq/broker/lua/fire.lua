-- fire.lua: enqueues one occurrence of a schedule, whoever offers it first
-- KEYS: streams jobs due body cron cron_paused
-- ARGV: now bell name occurrence id priority job
-- returns: 1 if it was enqueued (or skipped, with an empty job), 0 if it is not later than the last, not yet due, or
--   fell due while the schedule was paused
local streams, jobs, due, body, cron, cron_paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local now, bell, name, occurrence = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local id, priority, job = ARGV[5], ARGV[6], ARGV[7]
-- @use clock
-- @use expect
-- @use place

if occurrence > clock(now) then return 0 end
local last = tonumber(redis.call('HGET', cron, name) or 0)
if last >= occurrence then return 0 end
local pause = redis.call('HMGET', cron_paused, 'p:' .. name, 'r:' .. name)
if pause[1] then return 0 end
if tonumber(pause[2] or 0) >= occurrence then return 0 end
local wrong = expect(streams .. priority, 'stream') or expect(jobs, 'hash')
if wrong then return wrong end
redis.call('HSET', cron, name, ARGV[4])
if job ~= '' then place(id, priority, job) end
return 1
