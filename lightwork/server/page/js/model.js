// The page's copy of the app. Messages of the feed are applied to it. It uses no DOM, no signals and no clock: times
// are passed in. `touched` collects what has changed until `take` is called.

import { History } from "./history.js";
import { applyChange, asNumber, at, kindOf, mark, put } from "./values.js";

const MAX_CALLS = 5000;
const MAX_TOUCHED = 5000;

const isOver = (call) => call.ended_at != null;

function nothing() {
  return {
    all: false,
    works: new Set(),
    state: new Map(), // component -> Set of paths as JSON
    usage: new Set(),
    calls: false,
    tree: false,
    app: false,
    layout: false,
    schedules: false,
  };
}

export class Model {
  constructor() {
    this.run = null;
    this.seq = null;
    this.app = null;
    this.components = new Map();
    this.works = new Map();
    this.vars = new Map();
    this.calls = new Map();
    this.layout = {};
    this.schedules = [];
    this.usage = new Map();
    this.history = new History();
    this.usageHistory = new History();
    this.stale = new Map(); // component -> Set of attributes to which a change could not be applied: they must be fetched
    this.touched = nothing();
  }

  /** Return what has changed since the previous call. */
  take() {
    const touched = this.touched;
    this.touched = nothing();
    return touched;
  }

  /**
   * Apply a message of the feed.
   *
   * @returns {"snapshot"|"new run"|"resumed"|"changes"|"other"} The kind of the message. "new run" is a snapshot of
   *   another run; all data of the previous run has been dropped.
   */
  message(message, now) {
    switch (message.type) {
      case "snapshot":
        return this.snapshot(message, now);
      case "resumed":
        this.seq = message.seq;
        return "resumed";
      case "changes":
        for (const item of message.items) this.change(item, now);
        this.seq = message.seq;
        return "changes";
      default:
        return "other";
    }
  }

  snapshot(message, now) {
    const isNew = this.run !== null && this.run !== message.app.run;
    if (this.run !== message.app.run) {
      this.history = new History();
      this.usageHistory = new History();
      this.usage = new Map();
      this.calls = new Map();
    }
    this.run = message.app.run;
    this.seq = message.seq;
    this.app = message.app;
    this.components = new Map(message.components.map((one) => [one.name, one]));
    this.works = new Map(message.works.map((one) => [one.name, one]));
    this.layout = message.layout ?? {};
    this.schedules = message.schedules ?? [];
    for (const call of message.calls ?? []) this.calls.set(call.id, call);
    this.vars = new Map();
    this.stale = new Map();
    this.takeState("root", message.state, now);
    for (const name of this.components.keys()) if (!this.vars.has(name)) this.vars.set(name, {});
    this.touched.all = true;
    return isNew ? "new run" : "snapshot";
  }

  /** Collect the attributes of each component from the nested dictionaries of a state. */
  takeState(name, state, now) {
    if (state === null || typeof state !== "object" || mark(state)) return;
    if (this.components.has(name)) {
      this.setVars(name, state.vars, now);
      for (const group of ["flows", "works", "structures"])
        for (const [key, value] of Object.entries(state[group] ?? {})) this.takeState(`${name}.${key}`, value, now);
    } else {
      for (const [key, value] of Object.entries(state)) this.takeState(`${name}.${key}`, value, now);
    }
  }

  setVars(name, vars, now) {
    const known = vars === undefined || mark(vars) === "$cut" ? {} : vars;
    this.vars.set(name, known);
    for (const [attribute, value] of Object.entries(known)) this.record(name, attribute, value, now);
  }

  record(name, attribute, value, now) {
    const number = typeof value === "number" ? value : asNumber(value);
    if (number !== null) this.history.add(name, attribute, now, number);
  }

  change(item, now) {
    switch (item.t) {
      case "state":
        this.changeState(item, now);
        break;
      case "work": {
        const { t: _, ...work } = item;
        if (!this.works.has(item.name)) this.touched.tree = true;
        this.works.set(item.name, work);
        this.touched.works.add(item.name);
        break;
      }
      case "call": {
        const { t: _, ...call } = item;
        this.calls.delete(call.id); // moves it to the end: calls are ordered by their latest change
        this.calls.set(call.id, call);
        this.touched.calls = true;
        if (this.calls.size > MAX_CALLS) this.forgetCalls();
        break;
      }
      case "added":
        this.added(item, now);
        break;
      case "removed":
        this.removed(item.name);
        break;
      case "layout":
        this.layout = item.items;
        this.touched.layout = true;
        break;
      case "schedules":
        this.schedules = item.items;
        this.touched.schedules = true;
        break;
      case "app": {
        const { t: _, ...app } = item;
        this.app = app;
        this.touched.app = true;
        break;
      }
      case "usage":
        this.usage.set(item.work, { ...item, received: now });
        this.usageHistory.add(item.work, "cpu", item.time, item.cpu);
        this.usageHistory.add(item.work, "memory", item.time, item.memory);
        this.touched.usage.add(item.work);
        break;
    }
  }

  changeState(item, now) {
    const { name, path, kind } = item;
    let vars = this.vars.get(name);
    if (!vars) this.vars.set(name, (vars = {}));
    if (path.length === 1 && kind === "set") {
      put(vars, path[0], item.value);
      this.record(name, path[0], item.value, now);
    } else if (!applyChange(vars, path, kind, item.value)) {
      if (!this.stale.has(name)) this.stale.set(name, new Set());
      this.stale.get(name).add(path[0]);
    }
    let paths = this.touched.state.get(name);
    if (!paths) this.touched.state.set(name, (paths = new Set()));
    if (paths.size < MAX_TOUCHED) paths.add(path.length === 1 ? `[${JSON.stringify(path[0])}]` : JSON.stringify(path));
  }

  forgetCalls() {
    for (const call of this.calls.values()) {
      if (isOver(call)) this.calls.delete(call.id);
      if (this.calls.size <= MAX_CALLS * 0.9) break;
    }
  }

  added(item, now) {
    this.components.set(item.name, { name: item.name, kind: item.kind, type: item.type, children: [] });
    this.setVars(item.name, item.state?.vars, now);
    this.touched.tree = true;
  }

  removed(name) {
    const below = `${name}.`;
    for (const one of [...this.components.keys()]) {
      if (one !== name && !one.startsWith(below)) continue;
      for (const map of [this.components, this.works, this.vars, this.usage]) map.delete(one);
      this.history.forget(one);
      this.usageHistory.forget(one);
    }
    this.touched.tree = true;
  }

  /** Replace a stale attribute by the value that was fetched from the server. */
  refresh(name, attribute, value, now) {
    const vars = this.vars.get(name);
    if (vars === undefined) return;
    put(vars, attribute, value);
    this.record(name, attribute, value, now);
    this.touched.state.set(name, new Set([...(this.touched.state.get(name) ?? []), JSON.stringify([attribute])]));
  }

  /** Return the value at a path in a component's attributes. */
  valueAt(name, path) {
    const vars = this.vars.get(name);
    return vars === undefined ? undefined : at(vars, path);
  }

  /** Return the attributes of a component that a chart can show: numbers, and lists of numbers. */
  numeric(name) {
    const found = [];
    for (const [attribute, value] of Object.entries(this.vars.get(name) ?? {})) {
      const kind = kindOf(value);
      if (kind === "number") found.push({ attribute, isList: false });
      else if (kind === "list" && value.length > 1 && value.every((item) => asNumber(item) !== null))
        found.push({ attribute, isList: true });
    }
    return found;
  }
}
