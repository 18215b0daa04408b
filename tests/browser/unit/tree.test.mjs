import assert from "node:assert/strict";
import { test } from "node:test";

import { buildTree, comparer, countStages, flatten, matcher } from "../../../lightwork/server/page/js/tree.js";

const components = [
  { name: "root", kind: "flow" },
  { name: "root.trials.0", kind: "work" },
  { name: "root.trials.1", kind: "work" },
  { name: "root.sub", kind: "flow" },
  { name: "root.sub.one", kind: "work" },
];

test("a list or dict of components is a group in the tree", () => {
  const tree = buildTree(components);
  const rows = flatten(tree, () => false).map((one) => [one.depth, one.kind, one.key]);
  assert.deepEqual(rows, [
    [0, "flow", "root"],
    [1, "group", "trials"],
    [2, "work", "0"],
    [2, "work", "1"],
    [1, "flow", "sub"],
    [2, "work", "one"],
  ]);
  assert.deepEqual(flatten(tree, (one) => one.key === "trials").map((one) => one.key), ["root", "trials", "sub", "one"]);
});

test("each node counts the works below it by stage", () => {
  const tree = buildTree(components);
  countStages(tree, [
    { name: "root.trials.0", stage: "failed" },
    { name: "root.trials.1", stage: "running" },
    { name: "root.sub.one", stage: "running" },
  ]);
  assert.deepEqual(tree.nodes.get("root").stages, { failed: 1, running: 2 });
  assert.deepEqual(tree.nodes.get("root.trials").stages, { failed: 1, running: 1 });
  assert.equal(tree.nodes.get("root.sub").total, 1);
});

test("a filter is part of a name or class, or a glob for the name; all other characters are literal", () => {
  const work = { name: "root.trials.10", type: "Train" };
  for (const text of ["", "TRIALS", "train", "root.*.10", "*1?", " .10 "]) assert.ok(matcher(text)(work), text);
  for (const text of ["other", "root.*.1", "*.(", "tr.als", "root?"]) assert.ok(!matcher(text)(work), text);
});

test("works are sorted by numbers in names, by stages that need attention, and by usage", () => {
  const works = ["root.t.10", "root.t.9"].map((name) => ({ name, stage: "running", since: 1 }));
  works.push({ name: "root.t.11", stage: "failed", since: 2 });
  const sorted = (key, usage) => [...works].sort(comparer(key, usage)).map((one) => one.name.slice(7));
  assert.deepEqual(sorted("name"), ["9", "10", "11"]);
  assert.deepEqual(sorted("stage"), ["11", "9", "10"]);
  assert.deepEqual(sorted("since")[0], "11");
  assert.deepEqual(sorted("cpu", new Map([["root.t.9", { cpu: 5 }]]))[0], "9");
});
