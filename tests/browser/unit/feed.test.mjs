import assert from "node:assert/strict";
import { test } from "node:test";

import { FeedConnection } from "../../../lightwork/server/page/js/feed.js";

/** Sockets and a clock that the test controls. */
function makeWorld() {
  const world = {
    now: 0,
    sockets: [],
    timers: [],
    Date: { now: () => world.now },
    Math: { random: () => 1 },
    setTimeout: (run, wait) => world.timers.push({ run, at: world.now + wait }),
    clearTimeout: (id) => id && delete world.timers[id - 1],
    setInterval: () => 0,
    clearInterval: () => {},
    WebSocket: class {
      constructor(url) {
        this.url = url;
        this.readyState = 0;
        this.sent = [];
        world.sockets.push(this);
      }
      send(text) {
        this.sent.push(JSON.parse(text));
      }
      close() {
        this.readyState = 3;
        this.onclose();
      }
      accept() {
        this.readyState = 1;
        this.onopen();
      }
      say(message) {
        this.onmessage({ data: JSON.stringify(message) });
      }
    },
    pass(milliseconds) {
      world.now += milliseconds;
      const due = world.timers.filter((timer) => timer && timer.at <= world.now);
      world.timers = world.timers.filter((timer) => timer && timer.at > world.now);
      for (const timer of due) timer.run();
    },
  };
  return world;
}

function makeFeed(world, seen = () => ({ run: null, last: null })) {
  const told = { states: [], messages: [] };
  const feed = new FeedConnection({
    url: "ws://x/feed",
    seen,
    world,
    onMessage: (message) => told.messages.push(message),
    onState: (state) => told.states.push(state.name),
  });
  feed.open();
  return { feed, told };
}

test("hello names the last change that was seen, and the connection is open after the first answer", () => {
  const world = makeWorld();
  const { told } = makeFeed(world, () => ({ run: "r", last: 5 }));
  world.sockets[0].accept();
  assert.deepEqual(world.sockets[0].sent, [{ type: "hello", run: "r", last: 5 }]);
  assert.deepEqual(told.states, ["connecting"]);
  world.sockets[0].say({ type: "resumed", seq: 5 });
  assert.deepEqual(told.states, ["connecting", "open"]);
});

test("each failed reconnect doubles the wait, up to a limit, and a success resets it", () => {
  const world = makeWorld();
  const { told } = makeFeed(world);
  const waits = [];
  for (let n = 0; n < 8; n += 1) {
    world.sockets.at(-1).close();
    const before = world.now;
    world.pass(world.timers.filter(Boolean)[0].at - world.now);
    waits.push(world.now - before);
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  world.sockets.at(-1).accept();
  world.sockets.at(-1).say({ type: "snapshot", seq: 1 });
  assert.equal(told.states.at(-1), "open");
  world.sockets.at(-1).close();
  assert.equal(world.timers.filter(Boolean)[0].at - world.now, 250);
});

test("the follow request is sent again after a reconnect", () => {
  const world = makeWorld();
  const { feed } = makeFeed(world);
  world.sockets[0].accept();
  feed.follow({ logs: ["root.a"], usage: true });
  assert.deepEqual(world.sockets[0].sent.at(-1), { type: "follow", logs: ["root.a"], usage: true });
  world.sockets[0].close();
  feed.retry();
  world.sockets[1].accept();
  assert.deepEqual(world.sockets[1].sent.map((one) => one.type), ["hello", "follow"]);
});

test("a connection whose server has answered pings and is now silent is closed and opened again", () => {
  const world = makeWorld();
  const { feed, told } = makeFeed(world);
  world.sockets[0].accept();
  world.sockets[0].say({ type: "snapshot", seq: 1 });
  world.pass(60_000);
  feed.ping();
  assert.equal(told.states.at(-1), "open"); // the server has never answered a ping, so its silence means nothing
  world.sockets[0].say({ type: "pong" });
  world.pass(60_000);
  feed.ping();
  assert.equal(told.states.at(-1), "lost");
  world.pass(250);
  assert.equal(world.sockets.length, 2);
});

test("an early socket is taken over, with the messages that it has received", () => {
  const world = makeWorld();
  const socket = new world.WebSocket("ws://x/feed");
  socket.readyState = 1;
  const told = [];
  const events = [{ type: "snapshot", seq: 1 }, { type: "changes", seq: 2, items: [] }];
  const early = { socket, messages: events.map((one) => ({ data: JSON.stringify(one) })) };
  const feed = new FeedConnection({
    url: "ws://x/feed", early, world, seen: () => ({ run: "r", last: 2 }),
    onMessage: (message) => told.push(message.type), onState: (state) => told.push(state.name),
  });
  feed.follow({ logs: true, usage: false });
  feed.open();
  assert.deepEqual(told, ["connecting", "snapshot", "open", "changes"]);
  assert.deepEqual(socket.sent, [{ type: "follow", logs: true, usage: false }]);
  assert.equal(world.sockets.length, 1);
  socket.close();
  world.pass(250);
  assert.equal(world.sockets.length, 2);
  world.sockets[1].accept();
  assert.deepEqual(world.sockets[1].sent[0], { type: "hello", run: "r", last: 2 });
});

test("an early socket that is already closed is not taken over", () => {
  const world = makeWorld();
  const socket = new world.WebSocket("ws://x/feed");
  socket.readyState = 3;
  const feed = new FeedConnection({ url: "ws://x/feed", early: { socket, messages: [] }, world, seen: () => ({}), onMessage: () => {}, onState: () => {} });
  feed.open();
  assert.equal(world.sockets.length, 2);
});

test("a closed connection does not reconnect", () => {
  const world = makeWorld();
  const { feed } = makeFeed(world);
  world.sockets[0].accept();
  feed.close();
  world.pass(100_000);
  assert.equal(world.sockets.length, 1);
});
