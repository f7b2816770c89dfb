-- Creates a run record unless its id is taken.
-- ARGV: prefix, id, fingerprint, body, schema version, waiter (result id, may be empty), event (JSON), events kept,
--       lane, what its priority takes off its rank
-- Returns {"created" | "same" | "conflict", now}
local prefix, id, fingerprint, body, schema, waiter, event, kept, lane, lead = unpack(ARGV)
local key = prefix .. 'run:' .. id
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local stamp = string.format('%.6f', now)
local known = redis.call('HGET', key, 'fingerprint')
if known and known ~= fingerprint then
  return {'conflict', stamp}
end
if waiter ~= '' then
  redis.call('SADD', prefix .. 'waiters:' .. id, waiter)
end
if known then
  return {'same', stamp}
end
redis.call('HSET', key, 'fingerprint', fingerprint, 'body', body, 'schema', schema, 'rev', 1, 'state', 'queued',
  'attempt', 1, 'step', '', 'fence', 0, 'owner', '', 'deadline', 0, 'send', 0, 'resend_not_before', 0,
  'cancel_requested', 0, 'tokens', '[]', 'lock', '', 'lane', lane, 'submitted_at', stamp)
redis.call('ZADD', prefix .. 'runs', now, id)
redis.call('ZADD', prefix .. 'queued', now, id)
redis.call('SADD', prefix .. 'lanes', lane)
redis.call('ZADD', prefix .. 'lane:' .. lane, now - tonumber(lead), id)
redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', kept, '*', 'event', event, 'at', stamp)
return {'created', stamp}
