-- Who counts here: says that a replica is there, and answers how many are.
--
-- KEYS[1]   a sorted set of replicas by when they were last heard of
-- ARGV      the replica's name, seconds after which a silent one is not counted

local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])
