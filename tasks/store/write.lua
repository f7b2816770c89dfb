-- The one write to an existing run record: compare, then set, then keep the indexes and tokens in step with it.
-- ARGV: prefix, id, order (JSON):
--   guard         {field: expected value}; every one must hold
--   schema        newest schema version that the caller understands
--   claim         owner: take the lease if nobody holds it; grows the fence
--   set           {field: value}
--   body          new body (JSON text)
--   deadline_in   seconds from now until the lease or hand-over ends; 0: nobody has to act
--   resend_in     seconds from now before which the chain is not sent again
--   queue         false: out of the queue
--   lane          where it stands in the queue; a migration that is queued already moves there and keeps its rank
--   lead          what its priority takes off its rank
--   acquire       {tokens: {set name: limit}, lock: name}; all or none. Without a lock they are had beside those that
--                 it has already, and of none that somebody waits for in the queue
--   release       "tokens" | "all"; with the tokens goes what it is allotted of links
--   finish        seconds for which the finished record is kept; 0: for ever
--   reopen        true: a finished record becomes current again
--   event         JSON of the change of state, for the stream of events
--   events_kept   about how many events the stream holds
--   sample        statistics of the transfer now, packed
--   samples_kept  how many of them are kept, spread evenly over the transfer
-- Returns {"ok" | reason, detail, now, flat hash}
local prefix, id = ARGV[1], ARGV[2]
local order = cjson.decode(ARGV[3])
local key = prefix .. 'run:' .. id
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local stamp = string.format('%.6f', now)

local function answer(verdict, detail)
  return {verdict, detail or '', stamp, redis.call('HGETALL', key)}
end

if redis.call('EXISTS', key) == 0 then
  return answer('unknown')
end
if tonumber(redis.call('HGET', key, 'schema')) > order.schema then
  return answer('newer')
end
for field, expected in pairs(order.guard or {}) do
  if redis.call('HGET', key, field) ~= tostring(expected) then
    return answer('guard', field)
  end
end

if order.claim then
  local owner = redis.call('HGET', key, 'owner')
  -- The same owner again is a claim whose reply was lost.
  if owner ~= '' and owner ~= order.claim and tonumber(redis.call('HGET', key, 'deadline')) > now then
    return answer('owned', owner)
  end
end

if order.acquire then
  local lock = order.acquire.lock
  local holder = lock and redis.call('GET', prefix .. 'lock:' .. lock)
  if holder and holder ~= id then
    return answer('locked', holder)
  end
  local names = lock and {} or cjson.decode(redis.call('HGET', key, 'tokens'))
  for name, limit in pairs(order.acquire.tokens) do
    local set = prefix .. 'tokens:' .. name
    if redis.call('SISMEMBER', set, id) == 0 then
      local overtakes = not lock and redis.call('SISMEMBER', prefix .. 'awaited', name) == 1
      if overtakes or redis.call('SCARD', set) >= limit then
        return answer('full', name)
      end
      names[#names + 1] = name
    elseif lock then
      names[#names + 1] = name
    end
  end
  for name, _ in pairs(order.acquire.tokens) do
    redis.call('SADD', prefix .. 'tokens:' .. name, id)
  end
  redis.call('HSET', key, 'tokens', #names > 0 and cjson.encode(names) or '[]')
  if lock then
    redis.call('SET', prefix .. 'lock:' .. lock, id)
    redis.call('HSET', key, 'lock', lock)
  end
end

if order.claim then
  redis.call('HSET', key, 'owner', order.claim)
  redis.call('HINCRBY', key, 'fence', 1)
end
for field, value in pairs(order.set or {}) do
  redis.call('HSET', key, field, tostring(value))
end
if order.body then
  redis.call('HSET', key, 'body', order.body)
end
if order.deadline_in then
  if order.deadline_in > 0 then
    local deadline = now + order.deadline_in
    redis.call('HSET', key, 'deadline', string.format('%.6f', deadline))
    redis.call('ZADD', prefix .. 'deadlines', deadline, id)
  else
    redis.call('HSET', key, 'deadline', 0)
    redis.call('ZREM', prefix .. 'deadlines', id)
  end
end
if order.resend_in then
  redis.call('HSET', key, 'resend_not_before', string.format('%.6f', now + order.resend_in))
end
local function leave_lane()
  local lane = redis.call('HGET', key, 'lane')
  if not lane or lane == '' then
    return nil
  end
  local rank = redis.call('ZSCORE', prefix .. 'lane:' .. lane, id)
  redis.call('ZREM', prefix .. 'lane:' .. lane, id)
  if redis.call('EXISTS', prefix .. 'lane:' .. lane) == 0 then
    redis.call('SREM', prefix .. 'lanes', lane)
    redis.call('HDEL', prefix .. 'lanes:why', lane)
  end
  redis.call('HSET', key, 'lane', '', 'rank', rank)
  return rank
end
if order.queue == false then
  redis.call('ZREM', prefix .. 'queued', id)
  leave_lane()
elseif order.lane then
  -- One that comes back before its turn was over keeps the place that it had.
  local rank = leave_lane() or (not order.reopen and redis.call('HGET', key, 'rank'))
    or string.format('%.6f', now - order.lead)
  redis.call('ZADD', prefix .. 'queued', 'NX', now, id)
  redis.call('SADD', prefix .. 'lanes', order.lane)
  redis.call('ZADD', prefix .. 'lane:' .. order.lane, rank, id)
  redis.call('HSET', key, 'lane', order.lane)
end
if order.release then
  local tokens = redis.call('HGET', key, 'tokens')
  for _, name in ipairs(cjson.decode(tokens)) do
    redis.call('SREM', prefix .. 'tokens:' .. name, id)
  end
  redis.call('HSET', key, 'tokens', '[]')
  redis.call('HDEL', prefix .. 'shares', id)
  if order.release == 'all' then
    local lock = redis.call('HGET', key, 'lock')
    if lock ~= '' and redis.call('GET', prefix .. 'lock:' .. lock) == id then
      redis.call('DEL', prefix .. 'lock:' .. lock)
    end
    redis.call('HSET', key, 'lock', '')
  end
end
if order.sample then
  local samples = prefix .. 'samples:' .. id
  local function at(index)
    return tonumber(string.match(redis.call('LINDEX', samples, index) or '', '^[^,]*'))
  end
  local sample = string.format('%.2f,%s', now, order.sample)
  local first, before = at(0), at(-2)
  if before and now - before < (now - first) / order.samples_kept then
    redis.call('LSET', samples, -1, sample) -- the newest is always there, the others at even distances
  elseif redis.call('RPUSH', samples, sample) > order.samples_kept then
    local all = redis.call('LRANGE', samples, 0, -1)
    redis.call('DEL', samples)
    for i = 1, #all do
      if i % 2 == 1 or i == #all then
        redis.call('RPUSH', samples, all[i])
      end
    end
  end
end
if order.finish then
  redis.call('ZADD', prefix .. 'finished', now, id)
  redis.call('SADD', prefix .. 'unpublished', id)
  if order.finish > 0 then
    redis.call('EXPIRE', key, order.finish)
    redis.call('EXPIRE', prefix .. 'waiters:' .. id, order.finish)
    redis.call('EXPIRE', prefix .. 'samples:' .. id, order.finish)
  end
end
if order.reopen then
  redis.call('ZREM', prefix .. 'finished', id)
  redis.call('SREM', prefix .. 'unpublished', id)
  redis.call('PERSIST', key)
  redis.call('PERSIST', prefix .. 'waiters:' .. id)
  redis.call('PERSIST', prefix .. 'samples:' .. id)
end
if order.event then
  redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', order.events_kept, '*', 'event', order.event, 'at', stamp)
end
redis.call('HINCRBY', key, 'rev', 1)
return answer('ok')
