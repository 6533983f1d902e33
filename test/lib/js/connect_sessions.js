// express-session with connect-pg-simple, as an application has it: HTTP requests with cookies.
//
// Usage: node connect_sessions.js SOCKET_DIRECTORY PORT COMMAND [ARGUMENT...]
//   table              creates the table as the package does
//   create N SECONDS   makes N requests without a cookie, whose sessions last so many seconds; prints their cookies
//   visit COOKIE...    a request with each cookie; prints how often the session has been visited, 1 for a new one
//   prune              the package's own sweep
// Each command is an application of its own, which ends.
'use strict';

const http = require('http');
const session = require('express-session');
const { Pool } = require('pg');
const Store = require('connect-pg-simple')(session);

const [host, port, command, ...args] = process.argv.slice(2);
const pool = new Pool({ host, port: Number(port), database: 'postgres', user: process.env.PGUSER });
const store = new Store({ pool, createTableIfMissing: command === 'table', pruneSessionInterval: false });
const seconds = command === 'create' ? Number(args[1]) : 3600;
const middleware = session({
  store, secret: 'of the test', resave: false, saveUninitialized: true, rolling: true, cookie: { maxAge: seconds * 1000 },
});
const server = http.createServer((request, response) => middleware(request, response, () => {
  request.session.visits = (request.session.visits || 0) + 1;
  response.end(String(request.session.visits));
}));

function visit(cookie) {
  return new Promise((resolve, reject) => {
    const options = { port: server.address().port, path: '/', headers: cookie ? { cookie } : {} };
    http.get(options, (response) => {
      let body = '';
      response.on('data', (piece) => { body += piece; });
      response.on('end', () => resolve({ body, cookie: (response.headers['set-cookie'] || [''])[0].split(';')[0] }));
    }).on('error', reject);
  });
}

async function main() {
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  if (command === 'table') {
    await visit();
  } else if (command === 'create') {
    for (let i = 0; i < Number(args[0]); ++i) console.log((await visit()).cookie);
  } else if (command === 'visit') {
    for (const cookie of args) console.log((await visit(cookie)).body);
  } else if (command === 'prune') {
    await new Promise((resolve, reject) => { store.pruneSessions((error) => (error ? reject(error) : resolve())); });
  }
  server.close();
  await store.close();
  await pool.end();
}

main().catch((error) => { console.error(error); process.exit(1); });
