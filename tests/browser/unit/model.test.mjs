import assert from "node:assert/strict";
import { test } from "node:test";

import { Model } from "../../../lightwork/server/page/js/model.js";

const work = (name, stage = "running") => ({ name, type: "Train", stage, calls: {} });

function snapshot(run = "r1", seq = 10) {
  return {
    type: "snapshot",
    seq,
    app: { run, name: "demo", root: "Root" },
    components: [
      { name: "root", kind: "flow", type: "Root", children: ["root.trials.0", "root.sub"] },
      { name: "root.trials.0", kind: "work", type: "Train", children: [] },
      { name: "root.sub", kind: "flow", type: "Sub", children: ["root.sub.vars"] },
      { name: "root.sub.vars", kind: "work", type: "Train", children: [] },
    ],
    works: [work("root.trials.0"), work("root.sub.vars")],
    state: {
      vars: { best: null, losses: [1, 0.5] },
      calls: {},
      flows: { sub: { vars: { n: 1 }, flows: {}, works: { vars: { vars: { deep: { x: 1 } }, calls: {} } }, structures: {} } },
      works: {},
      structures: { trials: { 0: { vars: { loss: { $float: "inf" }, epoch: 0 }, calls: {} } } },
      changes: {},
    },
    calls: [{ id: 1, work: "root.trials.0", stage: "running", ended_at: null }],
    layout: {},
    schedules: [],
  };
}

function filled() {
  const model = new Model();
  model.message(snapshot(), 100);
  model.take();
  return model;
}

const changes = (seq, ...items) => ({ type: "changes", seq, items });
const state = (name, path, kind, value) => ({ t: "state", name, path, kind, value });

test("a snapshot sets the attributes of each component, also in structures and below flows", () => {
  const model = new Model();
  assert.equal(model.message(snapshot(), 100), "snapshot");
  assert.deepEqual(model.vars.get("root"), { best: null, losses: [1, 0.5] });
  assert.deepEqual(model.vars.get("root.trials.0"), { loss: { $float: "inf" }, epoch: 0 });
  assert.deepEqual(model.vars.get("root.sub.vars"), { deep: { x: 1 } });
  assert.equal(model.take().all, true);
  assert.deepEqual([model.run, model.seq], ["r1", 10]);
});

test("changes are applied in order, their paths are collected, and the last seq is stored", () => {
  const model = filled();
  model.message(
    changes(
      14,
      state("root.trials.0", ["epoch"], "set", 1),
      state("root.trials.0", ["loss"], "set", 0.7),
      state("root", ["losses"], "splice", [2, 0, [0.25]]),
      state("root.sub.vars", ["deep", "x"], "delete", null),
    ),
    101,
  );
  assert.equal(model.seq, 14);
  assert.deepEqual(model.vars.get("root.trials.0"), { loss: 0.7, epoch: 1 });
  assert.deepEqual(model.valueAt("root", ["losses"]), [1, 0.5, 0.25]);
  assert.deepEqual(model.valueAt("root.sub.vars", ["deep"]), {});
  const touched = model.take();
  assert.deepEqual([...touched.state.get("root.trials.0")], ['["epoch"]', '["loss"]']);
  assert.deepEqual([...touched.state.get("root.sub.vars")], ['["deep","x"]']);
  assert.equal(model.take().state.size, 0);
});

test("numbers and infinities are recorded over time, and lists of numbers can be charted", () => {
  const model = filled();
  model.message(changes(11, state("root.trials.0", ["loss"], "set", 0.5)), 101);
  const series = model.history.get("root.trials.0", "loss");
  assert.deepEqual([series.times, series.values], [[100, 101], [Infinity, 0.5]]);
  assert.deepEqual(model.numeric("root"), [{ attribute: "losses", isList: true }]);
});

test("a series is bounded, starts at its first number and ends at the newest one", () => {
  const model = filled();
  for (let n = 0; n < 50_000; n += 1) model.message(changes(n, state("root", ["best"], "set", n)), 200 + n);
  const series = model.history.get("root", "best");
  assert.ok(series.times.length <= 1201);
  assert.equal(series.values[0], 0);
  assert.equal(series.values.at(-1), 49_999);
  assert.deepEqual(series.times, [...series.times].sort((a, b) => a - b));
});

test("a change that cannot be applied marks its attribute as stale, highlights its path and changes nothing else", () => {
  const model = filled();
  model.message(changes(11, state("root", ["nowhere", "x"], "set", 1), state("root.unknown", ["a"], "set", 1)), 101);
  assert.deepEqual([...model.stale.get("root")], ["nowhere"]);
  model.refresh("root", "nowhere", { x: 2 }, 102);
  assert.deepEqual(model.valueAt("root", ["nowhere", "x"]), 2);
  assert.deepEqual(model.vars.get("root.unknown"), { a: 1 });
  assert.ok(model.take().state.get("root").has('["nowhere","x"]'));
});

test("components are added, and removed with everything below them", () => {
  const model = filled();
  model.message(changes(11, { t: "added", name: "root.trials.1", kind: "work", type: "Train", state: { vars: { loss: 1 } } }, { t: "work", ...work("root.trials.1") }), 1);
  assert.equal(model.works.get("root.trials.1").stage, "running");
  assert.equal("t" in model.works.get("root.trials.1"), false);
  assert.deepEqual(model.vars.get("root.trials.1"), { loss: 1 });
  model.message(changes(12, { t: "removed", name: "root.sub" }), 1);
  assert.deepEqual([...model.components.keys()], ["root", "root.trials.0", "root.trials.1"]);
  assert.equal(model.vars.has("root.sub.vars"), false);
  assert.equal(model.take().tree, true);
});

test("the number of calls is bounded: ended calls are dropped first", () => {
  const model = filled();
  for (let id = 2; id < 9000; id += 1)
    model.message(changes(id, { t: "call", id, work: "root.trials.0", stage: "succeeded", ended_at: 1 }), 1);
  assert.ok(model.calls.size <= 5000);
  assert.equal(model.calls.get(1).stage, "running");
  assert.ok(model.calls.has(8999));
});

test("a snapshot of another run replaces all data of the previous run", () => {
  const model = filled();
  assert.equal(model.message(snapshot("r1", 20), 102), "snapshot");
  assert.equal(model.calls.size, 1);
  const other = snapshot("r2", 1);
  other.calls = [];
  assert.equal(model.message(other, 103), "new run");
  assert.equal(model.calls.size, 0);
  assert.deepEqual(model.history.get("root.trials.0", "epoch").times, [103]);
});

test("after a resume the missed changes are applied", () => {
  const model = filled();
  assert.equal(model.message({ type: "resumed", seq: 10 }, 1), "resumed");
  assert.equal(model.message(changes(12, state("root", ["best"], "set", 2)), 1), "changes");
  assert.equal(model.vars.get("root").best, 2);
  assert.equal(model.take().all, false);
});

test("an attribute named __proto__ is an ordinary attribute", () => {
  const model = filled();
  model.message(changes(11, state("root", ["__proto__"], "set", { x: 1 })), 1);
  assert.equal({}.x, undefined);
  assert.deepEqual(model.valueAt("root", ["__proto__"]), { x: 1 });
});
