import assert from "node:assert/strict";
import { test } from "node:test";

import { layOut, stepFor } from "../../../lightwork/server/page/js/lanes.js";
import { idOf, stateRows } from "../../../lightwork/server/page/js/state_rows.js";

const components = new Map(
  [["root", "flow"], ["root.trials.0", "work"], ["root.trials.1", "work"]].map(([name, kind]) => [name, { name, kind, type: "T" }]),
);
const vars = new Map([
  ["root", { best: 1, table: { a: [1, 2, { deep: true }] } }],
  ["root.trials.0", { loss: 0.5 }],
  ["root.trials.1", { loss: 0.25, best_epoch: 3 }],
]);
const rows = (given) => stateRows({ components, vars, root: "root", open: new Set(), more: new Map(), search: "", ...given });
const keys = (given) => rows(given).map((row) => `${"-".repeat(row.depth)}${row.key ?? `${row.left} more`}`);
const open = (...places) => new Set(places.map(([name, ...path]) => idOf(name, path)));

test("only the children of open rows are shown", () => {
  assert.deepEqual(keys({}), ["root"]);
  assert.deepEqual(keys({ open: open(["root"], ["root", "table"]) }), ["root", "-best", "-table", "--a", "-trials"]);
  assert.deepEqual(keys({ open: open(["root"], ["root.trials"], ["root.trials.1"]) }), ["root", "-best", "-table", "-trials", "--0", "--1", "---loss", "---best_epoch"]);
});

test("a search shows matching attributes and opens the components that contain them", () => {
  assert.deepEqual(keys({ search: "best" }), ["root", "-best", "-trials", "--1", "---best_epoch"]);
  assert.deepEqual(keys({ search: "TRIALS.0" }), ["root", "-trials", "--0"]);
  assert.deepEqual(keys({ search: "nothing" }), []);
});

test("any component can be the root of the tree", () => {
  assert.deepEqual(keys({ root: "root.trials.0", open: open(["root.trials.0"]) }), ["0", "-loss"]);
  assert.deepEqual(keys({ root: "root.gone" }), []);
});

test("a long container shows its first items and the number of remaining ones", () => {
  const long = new Map([["root", { list: Array.from({ length: 1000 }, (_, n) => n) }]]);
  const given = { vars: long, open: open(["root"], ["root", "list"]) };
  assert.equal(rows(given).length, 1 + 1 + 200 + 1 + 1);
  assert.equal(rows(given)[202].left, 800);
  assert.equal(rows({ ...given, more: new Map([[idOf("root", ["list"]), 1000]]) }).length, 1 + 1 + 1000 + 1);
});

test("the number of rows is bounded", () => {
  const huge = new Map([["root", Object.fromEntries(Array.from({ length: 50_000 }, (_, n) => [`a${n}`, n]))]]);
  assert.ok(rows({ vars: huge, open: open(["root"]) }).length <= 20_001);
});

test("calls of a work share one lane unless they overlap", () => {
  const call = (id, work, started_at, ended_at) => ({ id, work, submitted_at: started_at, started_at, ended_at });
  const found = layOut([call(2, "a", 3, null), call(1, "a", 0, 2), call(3, "b", 0, 5), call(4, "b", 1, 2)]);
  assert.deepEqual(found.map((row) => [row.work, row.lane, row.bars.map((one) => one.id)]), [
    ["a", 0, [1, 2]],
    ["b", 0, [3]],
    ["b", 1, [4]],
  ]);
});

test("calls beyond the maximum number of lanes share the last lane", () => {
  const calls = Array.from({ length: 20 }, (_, id) => ({ id, work: "a", submitted_at: 0, started_at: 0, ended_at: null }));
  const found = layOut(calls, 3);
  assert.equal(found.length, 3);
  assert.equal(found[2].bars.length, 18);
});

test("the steps of an axis are round, and their number is close to the requested one", () => {
  assert.deepEqual([0.01, 7, 100, 4000, 400_000].map((span) => stepFor(span, 8)), [0.002, 1, 15, 600, 86400]);
});
