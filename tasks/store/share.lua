-- What a transfer is allotted of the links that it goes over: the only place where that changes.
-- What it is allotted is at every moment at least what it uses: it becomes more before more is used, and less only when
-- its owner says that less is used already. It becomes more only as far as nobody else is allotted it.
-- ARGV: prefix, id, fence, owner, order (JSON): links, least, most; limits {link: MiB/s};
--       want (absent: only look)
-- Returns {"ok" | "stale", allotted, now, flat hash of all}
local prefix, id, fence, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local order = cjson.decode(ARGV[5])
local key, run = prefix .. 'shares', prefix .. 'run:' .. ARGV[2]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

if redis.call('HGET', run, 'fence') ~= fence or redis.call('HGET', run, 'owner') ~= owner then
  return {'stale', 0, string.format('%.6f', now), {}}
end

local known = redis.call('HGET', key, id)
local mine = known and cjson.decode(known) or {held = 0, rank = now}
mine.links, mine.least, mine.most = order.links, order.least, order.most

if order.want then
  if order.want <= mine.held then
    mine.held = order.want
  else
    local free = order.want
    local all = redis.call('HGETALL', key)
    for _, link in ipairs(order.links) do
      local left = order.limits[link] or free
      for i = 1, #all, 2 do
        if all[i] ~= id then
          local other = cjson.decode(all[i + 1])
          for _, theirs in ipairs(other.links) do
            if theirs == link then
              left = left - other.held
            end
          end
        end
      end
      free = math.min(free, left)
    end
    if free > mine.held and free >= order.least then
      mine.held = free
    end
  end
end
redis.call('HSET', key, id, cjson.encode(mine))
return {'ok', mine.held, string.format('%.6f', now), redis.call('HGETALL', key)}
