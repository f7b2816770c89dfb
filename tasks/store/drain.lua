-- Writes a drain: creates it, or replaces what is still as the caller saw it. One drain that is not over for a host.
-- ARGV: prefix, id, host, revision that the caller saw (0: create), body (JSON), "1" while it is not over,
--       fingerprint, seconds for which a record that is over is kept, event (JSON, may be empty), events kept,
--       "1" while its queued migrations must wait
-- Returns {"ok" | "same" | "conflict" | "busy" | "stale", detail, now}
local prefix, id, host, rev, body, active, fingerprint, keep, event, kept, held = unpack(ARGV)
local key = prefix .. 'drain:' .. id
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local stamp = string.format('%.6f', now)
local holder = redis.call('HGET', prefix .. 'drained', host)

if rev == '0' then
  local known = redis.call('HGET', key, 'fingerprint')
  if known then
    return {known == fingerprint and 'same' or 'conflict', id, stamp}
  end
  if holder and active == '1' then
    local other = redis.call('HGET', prefix .. 'drain:' .. holder, 'fingerprint')
    return {other == fingerprint and 'same' or 'busy', holder, stamp}
  end
  redis.call('HSET', key, 'fingerprint', fingerprint, 'submitted_at', stamp)
  redis.call('ZADD', prefix .. 'drains', now, id)
else
  if redis.call('HGET', key, 'rev') ~= rev then
    return {'stale', '', stamp}
  end
  if active == '1' and holder and holder ~= id then
    return {'busy', holder, stamp}
  end
end
redis.call('HSET', key, 'body', body, 'rev', tonumber(rev) + 1)
if active == '1' then
  redis.call('HSET', prefix .. 'drained', host, id)
  redis.call('PERSIST', key)
else
  if holder == id then
    redis.call('HDEL', prefix .. 'drained', host)
  end
  redis.call('EXPIRE', key, keep)
end
if held == '1' then
  redis.call('SADD', prefix .. 'drains:held', id)
else
  redis.call('SREM', prefix .. 'drains:held', id)
end
if event ~= '' then
  redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', kept, '*', 'event', event, 'at', stamp)
end
return {'ok', id, stamp}
