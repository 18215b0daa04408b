// The model as signals. Messages are applied as they come; what they touched becomes visible once for each frame of the
// browser, however many there were.

import { AccessError, apiUrl, checkAccess, serverTime } from "./api.js";
import { Feed } from "./feed.js";
import { batch, signal } from "./html.js";
import { Model } from "./model.js";

/** How long, in milliseconds, a change is lit. */
export const LIT = 1200;

export const model = new Model();

/** {name: "connecting"|"open"|"cut"|"denied", retryAt, attempt} */
export const connection = signal({ name: "connecting", retryAt: null, attempt: 0 });
export const app = signal(null);
export const tree = signal(0);
export const anyWork = signal(0);
export const anyState = signal(0);
export const calls = signal(0);
export const usage = signal(0);
export const layout = signal({});
export const schedules = signal([]);
/** Whether the app has a user interface of its own. */
export const hasInterface = () => ["tabs", "url", "frontend"].includes(layout.value.root?.kind);
/** Runs of the app that this page has seen end: after the first one, the page says so. */
export const newRun = signal(null);
/** Seconds since the epoch by the clock of the server, once a second. */
export const now = signal(serverTime());

/** Counted for whoever measures: messages and changes taken in, and how often the page was brought up to date. */
export const counters = { messages: 0, changes: 0, flushes: 0 };

const workSignals = new Map();
const stateSignals = new Map();
const lit = new Map();
const logListeners = new Set();

/** The signal of a work's view; its value is undefined while there is no such work. */
export function work(name) {
  let found = workSignals.get(name);
  if (!found) workSignals.set(name, (found = signal(model.works.get(name))));
  return found;
}

/** A signal that changes whenever the state of a component does. */
export function stateOf(name) {
  let found = stateSignals.get(name);
  if (!found) stateSignals.set(name, (found = signal(0)));
  return found;
}

const USAGE_HOLDS = 15;

/** The latest sample of a work, undefined where it is old: the process may have ended. */
export function freshUsage(name) {
  const found = model.usage.get(name);
  return found && now.value - found.received < USAGE_HOLDS ? found : undefined;
}

/** When what is at this place last changed, in milliseconds; 0 where that is not lately. */
export function litAt(component, key) {
  return lit.get(component)?.get(key) ?? 0;
}

// --- from the feed to the signals ------------------------------------------------------------------

let isPlanned = false;

function plan() {
  if (isPlanned) return;
  isPlanned = true;
  // Nothing is drawn in a page that nobody sees; what came meanwhile is drawn when somebody does.
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
    for (const listener of logListeners) listener.cut(kind);
  }
  plan();
}

/** Show what was changed in the model by hand. */
export const replan = plan;

// --- the connection --------------------------------------------------------------------------------

const feed = new Feed({
  url: apiUrl("feed").replace(/^http/, "ws"),
  early: globalThis.lightworkEarly, // of boot.js
  seen: () => ({ run: model.run, last: model.seq }),
  onMessage: receive,
  onState: (state) => {
    connection.value = state;
    if (state.name === "cut") askWhy();
  },
});

/** A socket that is refused says nothing of the reason: a request does. */
async function askWhy() {
  try {
    await checkAccess();
  } catch (error) {
    if (!(error instanceof AccessError)) return; // nobody there: the feed goes on trying
    feed.close();
    connection.value = { name: "denied", retryAt: null, attempt: 0 };
  }
}

export const retryNow = () => feed.retry();

/** Begin: the feed is opened and the clock ticks. */
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

/** Have usage sampled until the function that is given back is called. */
export function wantUsage() {
  usageWanted += 1;
  follow();
  return () => {
    usageWanted -= 1;
    follow();
  };
}

/**
 * Have log lines of some works (of all: an empty list) until the function that is given back is called.
 *
 * `lines` gets what the feed says, gaps among it; `cut` is called after each new connection.
 */
export function wantLogs(listener) {
  logListeners.add(listener);
  follow();
  return () => {
    logListeners.delete(listener);
    follow();
  };
}
