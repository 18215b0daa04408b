import assert from "node:assert/strict";
import { test } from "node:test";

import {
  applyChange, asNumber, at, child, entries, fromInput, kindOf, sizeOf,
} from "../../../lightwork/server/page/js/values.js";

test("a set replaces the value at its path, however deep", () => {
  const vars = { a: { b: [1, { c: 2 }] } };
  assert.equal(applyChange(vars, ["a", "b", 1, "c"], "set", 3), true);
  assert.deepEqual(vars, { a: { b: [1, { c: 3 }] } });
  assert.equal(applyChange(vars, ["new"], "set", null), true);
  assert.equal(vars.new, null);
});

test("a delete removes a key and reports a missing one", () => {
  const vars = { a: { x: 1 } };
  assert.equal(applyChange(vars, ["a", "x"], "delete", null), true);
  assert.equal(applyChange(vars, ["a", "x"], "delete", null), false);
  assert.deepEqual(vars, { a: {} });
});

test("a splice replaces removed items by new ones", () => {
  const vars = { l: [0, 1, 2, 3] };
  assert.equal(applyChange(vars, ["l"], "splice", [1, 2, ["a", "b", "c"]]), true);
  assert.deepEqual(vars.l, [0, "a", "b", "c", 3]);
  assert.equal(applyChange(vars, ["l"], "splice", [4, 9, []]), false);
});

test("a splice can have more items than the stack can hold arguments", () => {
  const vars = { l: [1, 2, 3] };
  const many = Array.from({ length: 300_000 }, (_, n) => n);
  assert.equal(applyChange(vars, ["l"], "splice", [1, 1, many]), true);
  assert.equal(vars.l.length, 300_002);
  assert.deepEqual([vars.l[0], vars.l[1], vars.l.at(-1)], [1, 0, 3]);
});

test("an update removes members from a set and adds others", () => {
  const vars = { s: { $set: [1, "1", [2, 3]] } };
  assert.equal(applyChange(vars, ["s"], "update", [["new"], [1, [2, 3]]]), true);
  assert.deepEqual(vars.s, { $set: ["1", "new"] });
});

test("a dict becomes pairs when it gets a key that is not text", () => {
  const vars = { d: { a: 1 } };
  assert.equal(applyChange(vars, ["d", 7], "set", "seven"), true);
  assert.deepEqual(vars.d, { $dict: [["a", 1], [7, "seven"]] });
  assert.equal(applyChange(vars, ["d", 7], "set", "VII"), true);
  assert.equal(applyChange(vars, ["d", "7"], "set", "text"), true);
  assert.equal(child(vars.d, 7), "VII");
  assert.equal(child(vars.d, "7"), "text");
  assert.equal(applyChange(vars, ["d", "a"], "delete", null), true);
  assert.deepEqual(entries(vars.d), [[7, "VII"], ["7", "text"]]);
});

test("a key that looks like a mark does not change the kind of a dict", () => {
  const vars = { d: {} };
  applyChange(vars, ["d", "$cut"], "set", 1);
  assert.equal(kindOf(vars.d), "dict");
  assert.equal(child(vars.d, "$cut"), 1);
});

test("keys such as __proto__ are ordinary keys", () => {
  const vars = { d: {} };
  assert.equal(child(vars.d, "__proto__"), undefined);
  assert.equal(at(vars, ["d", "constructor"]), undefined);
  assert.equal(applyChange(vars, ["d", "__proto__"], "set", { polluted: true }), true);
  assert.equal({}.polluted, undefined);
  assert.equal(vars.d.polluted, undefined);
  assert.deepEqual(child(vars.d, "__proto__"), { polluted: true });
  assert.equal(applyChange(vars, ["d", "__proto__", "polluted"], "set", 2), true);
  assert.equal(applyChange(vars, ["d", "toString", "x"], "set", 2), false);
  assert.equal(applyChange(vars, ["d", "__proto__"], "delete", null), true);
});

test("an edit inside a cut value changes nothing and returns false", () => {
  const vars = { big: { $cut: 90_000, preview: "[1, 2" } };
  for (const [path, kind, value] of [
    [["big", 3], "set", 1],
    [["big"], "splice", [0, 0, [1]]],
    [["big", "x", "y"], "set", 1],
    [["big", "$cut"], "delete", null],
    [["none", "x"], "set", 1],
    [["big"], "unheard of", 1],
  ])
    assert.equal(applyChange(vars, path, kind, value), false, JSON.stringify(path));
  assert.deepEqual(vars, { big: { $cut: 90_000, preview: "[1, 2" } });
});

test("numbers that JSON cannot express are numbers", () => {
  assert.ok(Number.isNaN(asNumber({ $float: "nan" })));
  assert.equal(asNumber({ $float: "-inf" }), -Infinity);
  assert.equal(asNumber("1"), null);
  assert.equal(asNumber(true), null);
  assert.equal(kindOf({ $float: "inf" }), "number");
  assert.equal(sizeOf({ $set: [1, 2] }), 2);
});

test("user input is parsed as JSON, or as a Python constant", () => {
  assert.equal(fromInput(" 1.5 "), 1.5);
  assert.equal(fromInput("None"), null);
  assert.equal(fromInput("True"), true);
  assert.deepEqual(fromInput("-inf"), { $float: "-inf" });
  assert.deepEqual(fromInput('{"a": [1]}'), { a: [1] });
  assert.throws(() => fromInput("hello"));
});

test("an integer beyond the range of a double keeps its digits", () => {
  assert.equal(kindOf({ $int: "9007199254740993" }), "number");
  assert.equal(asNumber({ $int: "-9007199254740993" }), -9007199254740992);
  assert.deepEqual(fromInput("9007199254740993"), { $int: "9007199254740993" });
  assert.equal(fromInput("9007199254740991"), 9007199254740991);
});
