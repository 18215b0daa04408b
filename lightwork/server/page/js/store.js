// The model as signals. Each message is applied to the model when it arrives. The signals are updated at most once per
// animation frame, however many messages there were.

import { AccessError, apiUrl, checkAccess, serverTime } from "./api.js";
import { FeedConnection } from "./feed.js";
import { batch, signal } from "./html.js";
import { Model } from "./model.js";

/** Milliseconds for which a change is highlighted. */
export const LIT = 1200;

export const model = new Model();

/** State of the connection: {name: "connecting"|"open"|"lost"|"denied", retryAt, attempt}. */
export const connection = signal({ name: "connecting", retryAt: null, attempt: 0 });
export const app = signal(null);
export const tree = signal(0);
export const anyWork = signal(0);
export const anyState = signal(0);
export const calls = signal(0);
export const usage = signal(0);
export const layout = signal({});
export const schedules = signal([]);
/** Return whether the app has a user interface. */
export const hasInterface = () => ["tabs", "url", "frontend"].includes(layout.value.root?.kind);
/** The app of a new run, after this page has seen another run; null otherwise. The page then reports the restart. */
export const newRun = signal(null);
/** Seconds since the epoch by the server's clock. Updated once a second. */
export const now = signal(serverTime());

/** Counters for benchmarks: messages and changes received, and updates of the page. */
export const counters = { messages: 0, changes: 0, flushes: 0 };

const workSignals = new Map();
const stateSignals = new Map();
const lit = new Map();
const logListeners = new Set();

/** Return the signal of a work's view. Its value is undefined while the work does not exist. */
export function work(name) {
  let found = workSignals.get(name);
  if (!found) workSignals.set(name, (found = signal(model.works.get(name))));
  return found;
}

/** Return a signal that changes whenever the state of a component changes. */
export function stateOf(name) {
  let found = stateSignals.get(name);
  if (!found) stateSignals.set(name, (found = signal(0)));
  return found;
}

const USAGE_HOLDS = 15;

/** Return the latest usage of a work; undefined if it is older than 15 s, because the process may have ended. */
export function freshUsage(name) {
  const found = model.usage.get(name);
  return found && now.value - found.received < USAGE_HOLDS ? found : undefined;
}

/** Return the time in milliseconds of a recent change at a path; 0 if there was none. */
export function litAt(component, key) {
  return lit.get(component)?.get(key) ?? 0;
}

// --- from the feed to the signals ------------------------------------------------------------------

let isPlanned = false;

function plan() {
  if (isPlanned) return;
  isPlanned = true;
  // A browser runs no animation frames for a hidden page. The changes are drawn when the page becomes visible.
  requestAnimationFrame(flush);
}

function light(component, paths, time) {
  let places = lit.get(component);
  if (!places) lit.set(component, (places = new Map()));
  for (const key of paths) {
    places.set(key, time);
    const path = JSON.parse(key);
    for (let length = path.length - 1; length > 0; length -= 1)
      places.set(JSON.stringify(path.slice(0, length)), time);
  }
  places.set("[]", time);
}

function dim(time) {
  for (const [component, places] of lit) {
    for (const [key, since] of places) if (time - since > LIT) places.delete(key);
    if (places.size === 0) lit.delete(component);
  }
}

function flush() {
  isPlanned = false;
  counters.flushes += 1;
  const time = performance.now();
  const touched = model.take();
  dim(time);
  batch(() => {
    if (touched.all) {
      app.value = model.app;
      layout.value = model.layout;
      schedules.value = model.schedules;
      for (const counter of [tree, anyWork, anyState, calls, usage]) counter.value += 1;
      for (const [name, one] of workSignals) one.value = model.works.get(name);
      for (const one of stateSignals.values()) one.value += 1;
    }
    if (touched.app) app.value = model.app;
    if (touched.layout) layout.value = model.layout;
    if (touched.schedules) schedules.value = model.schedules;
    if (touched.calls) calls.value += 1;
    if (touched.usage.size) usage.value += 1;
    if (touched.tree) {
      tree.value += 1;
      for (const [name, one] of workSignals) one.value = model.works.get(name);
    }
    if (touched.works.size) anyWork.value += 1;
    for (const name of touched.works) {
      light(name, [], time);
      if (workSignals.has(name)) workSignals.get(name).value = model.works.get(name);
    }
    if (touched.state.size) anyState.value += 1;
    for (const [name, paths] of touched.state) {
      light(name, paths, time);
      if (stateSignals.has(name)) stateSignals.get(name).value += 1;
    }
  });
}

function receive(message) {
  counters.messages += 1;
  const kind = model.message(message, serverTime());
  if (kind === "changes") {
    counters.changes += message.items.length;
    if (logListeners.size) {
      const lines = message.items.filter((item) => item.t === "log" || item.t === "log_gap");
      if (lines.length) for (const listener of logListeners) listener.lines(lines);
    }
  } else if (kind !== "other") {
    if (kind === "new run") newRun.value = model.app;
    for (const listener of logListeners) listener.reconnected(kind);
  }
  plan();
}

/** Update the page after a change of the model that did not come from the feed. */
export const replan = plan;

// --- the connection --------------------------------------------------------------------------------

const feed = new FeedConnection({
  url: apiUrl("feed").replace(/^http/, "ws"),
  early: globalThis.lightworkEarly, // of boot.js
  seen: () => ({ run: model.run, last: model.seq }),
  onMessage: receive,
  onState: (state) => {
    connection.value = state;
    if (state.name === "lost") checkDenied();
  },
});

/** Find out whether access is denied: a refused WebSocket does not report the reason, but a request does. */
async function checkDenied() {
  try {
    await checkAccess();
  } catch (error) {
    if (!(error instanceof AccessError)) return; // the server is not reachable: the feed continues to reconnect
    feed.close();
    connection.value = { name: "denied", retryAt: null, attempt: 0 };
  }
}

export const retryNow = () => feed.retry();

/** Open the feed and start the clock. */
export function start() {
  feed.open();
  setInterval(() => {
    now.value = serverTime();
  }, 1000);
  addEventListener("online", retryNow);
  document.addEventListener("visibilitychange", () => {
    follow();
    if (!document.hidden) retryNow();
  });
}

// --- what is followed ------------------------------------------------------------------------------

let usageWanted = 0;

function follow() {
  const listeners = [...logListeners];
  const all = listeners.some((one) => one.works.length === 0);
  const names = [...new Set(listeners.flatMap((one) => one.works))];
  const wanted = { logs: all ? true : names.length ? names : false, usage: usageWanted > 0 && !document.hidden };
  if (JSON.stringify(wanted) !== JSON.stringify(feed.wanted)) feed.follow(wanted);
}

/** Follow usage. Return a function that ends it. */
export function wantUsage() {
  usageWanted += 1;
  follow();
  return () => {
    usageWanted -= 1;
    follow();
  };
}

/**
 * Follow the log lines of `listener.works`; an empty list means all works. Return a function that ends it.
 *
 * `listener.lines` is called with lines and gaps from the feed, `listener.reconnected` after each new connection.
 */
export function wantLogs(listener) {
  logListeners.add(listener);
  follow();
  return () => {
    logListeners.delete(listener);
    follow();
  };
}
