-- One step of one node: see APPLY in redis.rs for KEYS and ARGV, and for the keys.
local P, me, number, before, fresh = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local dead_after, remember, most = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local kept, reply_life, gap = tonumber(ARGV[9]), ARGV[10], tonumber(ARGV[11])
local FIRST, EACH = 12, 6

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function ms(value) return string.format('%.0f', value) end

redis.call('SET', P .. 'epoch', fresh, 'NX')
local epoch = redis.call('GET', P .. 'epoch')
local line = redis.call('HGET', P .. 'nodes', me)
local written = line and string.match(line, '^%S+') or ''
if written == number then
  return {epoch, redis.call('GET', P .. 'reply:' .. me) or ('0 0 ' .. ms(now))}
end
if written ~= before then return {} end
-- Since when it writes without a break. While Redis was away, or this node, nobody could tell who lives.
local at, since = string.match(line or '', '^%S+ (%d+) (%d+)$')
-- (A clock that went back tells nothing of the time before either.)
if not at or math.abs(now - at) > gap or tonumber(since) > now then since = ms(now) end
redis.call('HSET', P .. 'nodes', me, number .. ' ' .. ms(now) .. ' ' .. since)

local nodes = redis.call('HGETALL', P .. 'nodes')
local turns, events, newest = {}, 0, ''

local function tell(json)
  if json == '' then return end
  local fields = cjson.decode(json)
  fields[#fields + 1] = 't'
  fields[#fields + 1] = string.format('%.0f', time[1] * 1000000 + time[2])
  newest = ' ' .. redis.call('XADD', KEYS[1], 'MINID', '~', ms(math.max(now - kept, 0)), '*', unpack(fields))
  events = events + 1
end

-- Whether any node has the user in the room; nobody counts where there is no user.
local function is_inside(room, who)
  if who == '' then return true end
  local names = {}
  for n = 1, #nodes, 2 do names[#names + 1] = nodes[n] .. '\n' .. who end
  for _, value in ipairs(redis.call('HMGET', room, unpack(names))) do
    if value then return true end
  end
  return false
end

-- Both answer whether the fact is new for this node.
local function online(user, count, news)
  local key = P .. 'user:' .. user
  local new = redis.call('HSET', key, me, count) == 1
  if new and news and redis.call('HLEN', key) == 1 then turns[#turns + 1] = 'online\t' .. user end
  return new
end

local function offline(node, user, news, seen)
  local key = P .. 'user:' .. user
  if redis.call('HDEL', key, node) == 1 and redis.call('EXISTS', key) == 0 then
    redis.call('SET', P .. 'seen:' .. user, ms(seen), 'PX', remember)
    if news then turns[#turns + 1] = 'offline\t' .. user .. '\t' .. ms(seen) end
  end
end

local function enter(namespace, name, who, count, news, joined, left)
  local room = P .. 'room:' .. namespace .. '\n' .. name
  local occupied, inside = redis.call('EXISTS', room) == 1, is_inside(room, who)
  local new = redis.call('HSET', room, me .. '\n' .. who, count .. '\n' .. left) == 1
  if not inside and news then tell(joined) end
  if not occupied and news then turns[#turns + 1] = 'occupied\t' .. namespace .. '\t' .. name end
  return new
end

local function exit(node, namespace, name, who, news)
  local room = P .. 'room:' .. namespace .. '\n' .. name
  local field = node .. '\n' .. who
  local value = redis.call('HGET', room, field)
  if not value then return end
  redis.call('HDEL', room, field)
  if not news then return end
  if who ~= '' and not is_inside(room, who) then tell(string.match(value, '\n(.*)$')) end
  if redis.call('EXISTS', room) == 0 then turns[#turns + 1] = 'vacated\t' .. namespace .. '\t' .. name end
end

local function parts(fact)
  local namespace, name, who = string.match(fact, '^r\n([^\n]*)\n([^\n]*)\n(.*)$')
  return string.match(fact, '^u\n(.*)$'), namespace, name, who
end

local function remove(node, fact, news, seen)
  local user, namespace, name, who = parts(fact)
  if user then offline(node, user, news, seen) else exit(node, namespace, name, who, news) end
  redis.call('HDEL', P .. 'node:' .. node, fact)
end

local added, list = {}, {}
for at = FIRST, #ARGV, EACH do
  local fact, count, news = ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  if count == '' then
    remove(me, fact, news, math.min(now, tonumber(ARGV[at + 5]) or now))
    added[fact] = nil
  else
    local user, namespace, name, who = parts(fact)
    local new
    if user then
      new = online(user, count, news)
    else
      new = enter(namespace, name, who, count, news, ARGV[at + 3], ARGV[at + 4])
    end
    if new then added[fact] = true end
  end
end
for fact in pairs(added) do
  list[#list + 1] = fact
  list[#list + 1] = ''
end
if #list > 0 then redis.call('HSET', P .. 'node:' .. me, unpack(list)) end

-- What a dead node has left is removed a part at a time, by whoever has lived for so long itself; one that said that it
-- stops waits for nobody.
local more = '0'
for n = 1, #nodes, 2 do
  local node, state, at, left = nodes[n], string.match(nodes[n + 1], '^(%S+) (%d+) (%d+)$')
  at = tonumber(at)
  if at > now + gap then
    -- The clock went back: else it would live until that time comes again.
    at = now
    redis.call('HSET', P .. 'nodes', node, state .. ' ' .. ms(now) .. ' ' .. left)
  end
  local is_seen = state == 'left' or now - tonumber(since) >= dead_after
  if node ~= me and is_seen and at < now - dead_after then
    -- Should it come back meanwhile, it is to write everything again.
    redis.call('HSET', P .. 'nodes', node, (state == 'left' and state or 'reaped') .. ' ' .. ms(at) .. ' ' .. left)
    local seen = state == 'left' and tonumber(left) or at
    for _, fact in ipairs(redis.call('HRANDFIELD', P .. 'node:' .. node, most)) do remove(node, fact, true, seen) end
    if redis.call('EXISTS', P .. 'node:' .. node) == 1 then
      more = '1'
    else
      redis.call('HDEL', P .. 'nodes', node)
    end
    break
  end
end

local reply = events .. ' ' .. more .. ' ' .. ms(now) .. newest
if #turns > 0 then reply = reply .. '\n' .. table.concat(turns, '\n') end
redis.call('SET', P .. 'reply:' .. me, reply, 'PX', reply_life)
return {epoch, reply}
