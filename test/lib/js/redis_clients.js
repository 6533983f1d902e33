// Keys as Node.js libraries write them: sessions, limits, jobs.
//
// Usage: redis_clients.js PORT N      writes N sessions, N limits and N jobs into the Redis at 127.0.0.1:PORT.
const { createClient } = require('redis');
const session = require('express-session');
const { RedisStore } = require('connect-redis');
const { RateLimiterRedis } = require('rate-limiter-flexible');
const { Queue } = require('bullmq');
const uid = require('uid-safe');
const Redis = require('ioredis');

async function main() {
  const [port, n] = process.argv.slice(2).map(Number);

  const client = createClient({ socket: { host: '127.0.0.1', port } });
  await client.connect();
  const store = new RedisStore({ client });
  const set = (id, value) => new Promise((resolve, reject) => store.set(id, value, (e) => (e ? reject(e) : resolve())));
  for (let i = 0; i < n; ++i) {
    const cookie = new session.Cookie({ maxAge: 3600000 });
    await set(await uid(24), { cookie, user: i });  // as express-session makes its ids
  }
  await client.quit();

  const redis = new Redis({ host: '127.0.0.1', port, maxRetriesPerRequest: null });
  const limiter = new RateLimiterRedis({ storeClient: redis, points: 100, duration: 3600 });
  for (let i = 0; i < n; ++i) await limiter.consume(`10.0.${i >> 8}.${i & 255}`, 1 + (i % 7));

  const queue = new Queue('mail', { connection: redis });
  await queue.addBulk(Array.from({ length: n }, (_, i) => ({ name: 'welcome', data: { user: i } })));
  await queue.close();
  await redis.quit();
}

main().catch((error) => { console.error(error); process.exit(1); });
