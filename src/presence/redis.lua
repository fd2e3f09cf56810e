-- One step of one node: see APPLY in redis.rs for KEYS and ARGV, and for the keys. Behind repair.lua.
local P, me, number, before, fresh = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local dead_after, remember, most = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local kept, reply_life, gap = tonumber(ARGV[9]), ARGV[10], tonumber(ARGV[11])
local crowd, most_nodes = tonumber(ARGV[12]), tonumber(ARGV[13])
local FIRST, EACH = 14, 6

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function ms(value) return string.format('%.0f', value) end

local epoch = call('GET', P .. 'epoch')
if not epoch then
  epoch = fresh
  redis.call('SET', P .. 'epoch', fresh)
end
-- More than there can be: every node writes again.
if call('HLEN', P .. 'nodes') > most_nodes then
  redis.call('UNLINK', P .. 'nodes')
  repaired = repaired + 1
end
local line = redis.call('HGET', P .. 'nodes', me)
local written = line and string.match(line, '^%S+') or ''
if written == number then
  return {epoch, call('GET', P .. 'reply:' .. me) or ('0 0 ' .. ms(now))}
end
if written ~= before then return {} end
-- Since when it writes without a break. While Redis was away, or this node, nobody could tell who lives.
local at, since = string.match(line or '', '^%S+ (%d+) (%d+)$')
-- (A clock that went back tells nothing of the time before either.)
if not at or math.abs(now - at) > gap or tonumber(since) > now then since = ms(now) end

local nodes = redis.call('HGETALL', P .. 'nodes')
if not line then
  nodes[#nodes + 1] = me
  nodes[#nodes + 1] = ''
end
local lines, events, newest, silent = {}, 0, '', 0

-- Adds an announcement to the log. Where the stream does not take it, the node adds it.
local function tell(json, after)
  if not json or json == '' then return end
  local is_json, fields = pcall(cjson.decode, json)
  if not is_json or type(fields) ~= 'table' or #fields == 0 or #fields % 2 == 1 or #fields > 100 then
    repaired = repaired + 1
    return
  end
  for n, field in ipairs(fields) do fields[n] = tostring(field) end
  if after and after ~= '' then
    fields[#fields + 1] = 'after'
    fields[#fields + 1] = after
  end
  fields[#fields + 1] = 't'
  fields[#fields + 1] = string.format('%.0f', time[1] * 1000000 + time[2])
  local id = redis.pcall('XADD', KEYS[1], 'MINID', '~', ms(math.max(now - kept, 0)), '*', unpack(fields))
  if type(id) == 'table' then
    lines[#lines + 1] = 'unannounced\t' .. cjson.encode(fields)
    return
  end
  newest = ' ' .. id
  events = events + 1
end

-- Whether so many are in a room that nobody is announced.
local function is_crowd(room)
  local many = redis.call('HLEN', room) > crowd
  if many then silent = silent + 1 end
  return many
end

-- Whether any node has the user in the room; nobody counts where there is no user.
local function is_inside(room, who)
  if who == '' then return true end
  local names = {}
  for n = 1, #nodes, 2 do names[#names + 1] = nodes[n] .. '\n' .. who end
  for _, value in ipairs(call('HMGET', room, unpack(names))) do
    if value then return true end
  end
  return false
end

local function online(user, count, news)
  local key = P .. 'user:' .. user
  local new = call('HSET', key, me, count) == 1
  if new and news and redis.call('HLEN', key) == 1 then lines[#lines + 1] = 'online\t' .. user end
end

local function offline(node, user, news, seen)
  local key = P .. 'user:' .. user
  if call('HDEL', key, node) == 1 and redis.call('EXISTS', key) == 0 then
    redis.call('SET', P .. 'seen:' .. user, ms(seen), 'PX', remember)
    if news then lines[#lines + 1] = 'offline\t' .. user .. '\t' .. ms(seen) end
  end
end

local function enter(namespace, name, who, count, news, joined, left)
  local room = P .. 'room:' .. namespace .. '\n' .. name
  local occupied, inside = call('HLEN', room) > 0, is_inside(room, who)
  redis.call('HSET', room, me .. '\n' .. who, count .. '\n' .. left)
  if not inside and news and joined ~= '' and not is_crowd(room) then tell(joined) end
  if not occupied and news then lines[#lines + 1] = 'occupied\t' .. namespace .. '\t' .. name end
end

local function exit(node, namespace, name, who, news, after)
  local room = P .. 'room:' .. namespace .. '\n' .. name
  local field = node .. '\n' .. who
  local value = call('HGET', room, field)
  if not value then return end
  redis.call('HDEL', room, field)
  if not news then return end
  local left = string.match(value, '\n(.*)$') or ''
  if who ~= '' and left ~= '' and not is_inside(room, who) and not is_crowd(room) then tell(left, after) end
  if redis.call('EXISTS', room) == 0 then lines[#lines + 1] = 'vacated\t' .. namespace .. '\t' .. name end
end

local function parts(fact)
  local namespace, name, who = string.match(fact, '^r\n([^\n]*)\n([^\n]*)\n(.*)$')
  return string.match(fact, '^u\n(.*)$'), namespace, name, who
end

local function remove(node, fact, news, seen, after)
  local user, namespace, name, who = parts(fact)
  if user then
    offline(node, user, news, seen)
  elseif who then
    exit(node, namespace, name, who, news, after)
  else
    repaired = repaired + 1
  end
  call('HDEL', P .. 'node:' .. node, fact)
end

local added, list = {}, {}
for at = FIRST, #ARGV, EACH do
  local fact, count, news = ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  if count == '' then
    remove(me, fact, news, math.min(now, tonumber(ARGV[at + 5]) or now), ARGV[at + 3])
    added[fact] = nil
  else
    local user, namespace, name, who = parts(fact)
    if user then
      online(user, count, news)
    else
      enter(namespace, name, who, count, news, ARGV[at + 3], ARGV[at + 4])
    end
    added[fact] = true
  end
end
for fact in pairs(added) do
  list[#list + 1] = fact
  list[#list + 1] = ''
end
if #list > 0 then call('HSET', P .. 'node:' .. me, unpack(list)) end

-- What a dead node has left is removed a part at a time, by whoever has lived for so long itself; one that said that it
-- stops waits for nobody.
local more = '0'
for n = 1, #nodes, 2 do
  local node, state, at, left = nodes[n], string.match(nodes[n + 1], '^(%S+) (%d+) (%d+)$')
  at, left = tonumber(at), tonumber(left)
  if node == me then
    at = now
  elseif not state or not left or left > 2 ^ 53 then
    redis.call('HDEL', P .. 'nodes', node)
    repaired = repaired + 1
    at = now
  elseif at > now + gap then
    -- The clock went back: else it would live until that time comes again.
    at = now
    redis.call('HSET', P .. 'nodes', node, state .. ' ' .. ms(now) .. ' ' .. ms(left))
  end
  local is_seen = state == 'left' or now - tonumber(since) >= dead_after
  if node ~= me and is_seen and at < now - dead_after then
    -- Should it come back meanwhile, it is to write everything again.
    redis.call('HSET', P .. 'nodes', node, (state == 'left' and state or 'reaped') .. ' ' .. ms(at) .. ' ' .. ms(left))
    local seen = state == 'left' and left or at
    for _, fact in ipairs(call('HRANDFIELD', P .. 'node:' .. node, most)) do remove(node, fact, true, seen) end
    if redis.call('EXISTS', P .. 'node:' .. node) == 1 then
      more = '1'
    else
      redis.call('HDEL', P .. 'nodes', node)
    end
    break
  end
end

if repaired > 0 then lines[#lines + 1] = 'repaired\t' .. repaired end
if silent > 0 then lines[#lines + 1] = 'silent\t' .. silent end
local reply = events .. ' ' .. more .. ' ' .. ms(now) .. newest
if #lines > 0 then reply = reply .. '\n' .. table.concat(lines, '\n') end
redis.call('SET', P .. 'reply:' .. me, reply, 'PX', reply_life)
-- Last, so that a step that failed half-way is carried out again.
redis.call('HSET', P .. 'nodes', me, number .. ' ' .. ms(now) .. ' ' .. since)
return {epoch, reply}
