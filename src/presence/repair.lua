-- Runs a command on a key. Where the key has another type, which no node has written, it is removed first.
local repaired = 0
local function call(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then
    redis.call('UNLINK', key)
    repaired = repaired + 1
  end
  return redis.call(command, key, ...)
end
