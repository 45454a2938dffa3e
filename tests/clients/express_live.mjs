// People at work on an Express site whose sessions are kept by connect-redis, for some seconds.
//
//     node express_live.mjs PORT SECONDS     with node_modules beside the working folder
//
// Ends with one line of JSON, as pyramid_live.py does. With `disableTTL` no key has a TTL, and reading renews nothing:
// only idle times can tell which of them are in use.
import http from "node:http";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.join(process.cwd(), "package.json"));
const express = require("express");
const session = require("express-session");
const { RedisStore } = require("connect-redis");
const { createClient } = require("redis");

const [port, seconds] = process.argv.slice(2).map(Number);
const TIMEOUT = 4; // as the rule says
const client = createClient({ url: `redis://127.0.0.1:${port}/2` });
await client.connect();
const end = performance.now() + seconds * 1000;
const told = { requests: 0, lost: [], late: 0, abandoned: [] };

async function site(options, cookie) {
  const app = express();
  const store = new RedisStore({ client, ...options });
  app.use(session({ store, secret: "not a secret", resave: false, saveUninitialized: false, cookie }));
  app.get("/login", (request, response) => {
    request.session.user = Number(request.query.user);
    response.send(request.sessionID);
  });
  app.get("/read", (request, response) => response.send(String(request.session.user)));
  app.get("/write", (request, response) => {
    request.session.visits = (request.session.visits ?? 0) + 1;
    response.send(String(request.session.user));
  });
  const server = http.createServer(app);
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const base = `http://127.0.0.1:${server.address().port}`;
  return {
    prefix: options.prefix,
    server,
    async login(user) {
      const response = await fetch(`${base}/login?user=${user}`);
      const cookie = response.headers.get("set-cookie").split(";")[0];
      return { cookie, id: await response.text() };
    },
    async ask(cookie, what) {
      return await (await fetch(`${base}/${what}`, { headers: { cookie } })).text();
    },
  };
}

const pause = (most) => new Promise((done) => setTimeout(done, 50 + Math.random() * most * 1000));

async function person(site, number) {
  while (performance.now() < end) {
    const { cookie } = await site.login(number);
    let used = performance.now();
    while (performance.now() < end) {
      await pause(2);
      const asked = performance.now();
      const answer = await site.ask(cookie, Math.random() < 0.2 ? "write" : "read");
      told.requests += 1;
      if (answer !== String(number)) {
        const gap = (asked - used) / 1000;
        if (gap < TIMEOUT - 0.2) told.lost.push(`${site.prefix} after ${gap.toFixed(2)} s`);
        else told.late += 1;
        break;
      }
      used = asked;
    }
  }
}

const forEver = await site({ prefix: "sess:", disableTTL: true }, {});
const touched = await site({ prefix: "touched:" }, { maxAge: TIMEOUT * 1000 });
for (let number = 0; number < 60; number++) {
  const { id } = await forEver.login(number);
  told.abandoned.push(forEver.prefix + id);
}
const people = [];
for (let number = 100; number < 120; number++) people.push(person(forEver, number));
for (let number = 200; number < 210; number++) people.push(person(touched, number));
await Promise.all(people);
for (const { server } of [forEver, touched]) {
  server.close();
  server.closeAllConnections();
}
await client.close();
console.log(JSON.stringify(told));
