# The keys of Redis when version 0.1 read it.
redis-cli -p $1 EVAL 'for i = 1, 40 do redis.call("HSET", "user:" .. i, "name", "user " .. i, "mail", i .. "@example.org") end
for i = 1, 30 do redis.call("SET", "price:" .. i, i * 100) end
for i = 1, 20 do redis.call("SET", "visits:" .. i .. ":page", i) redis.call("SADD", "tags:" .. i, "a", "b") end
redis.call("SET", "price:99", "much") redis.call("SET", "session-of-nobody", "kept")' 0
