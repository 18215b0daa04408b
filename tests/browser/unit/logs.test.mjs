import assert from "node:assert/strict";
import { test } from "node:test";

import { ansiParts } from "../../../lightwork/server/page/js/ansi.js";
import { LogBuffer } from "../../../lightwork/server/page/js/log_buffer.js";

const line = (seq) => ({ seq, work: "root.a", time: seq, text: `line ${seq}` });
const lines = (...numbers) => numbers.map(line);
const numbers = (buffer) => buffer.rows.map((row) => (row.gap ? `${row.after}-${row.before}` : row.seq));

test("lines are sorted by number and without duplicates, in whatever order they arrive", () => {
  const buffer = new LogBuffer();
  assert.equal(buffer.add(lines(5, 6, 9)), 3);
  assert.equal(buffer.add(lines(10, 11)), 2);
  assert.equal(buffer.add(lines(1, 2, 6, 7, 10)), 3);
  assert.deepEqual(numbers(buffer), [1, 2, 5, 6, 7, 9, 10, 11]);
  assert.deepEqual([buffer.first, buffer.last], [1, 11]);
});

test("a gap stands between the lines around it until it is filled", () => {
  const buffer = new LogBuffer();
  buffer.add(lines(1, 2));
  buffer.addGap(2, 8);
  buffer.add(lines(8, 9));
  assert.deepEqual(numbers(buffer), [1, 2, "2-8", 8, 9]);
  buffer.fill(buffer.rows[2], lines(3, 4), true);
  assert.deepEqual(numbers(buffer), [1, 2, 3, 4, "4-8", 8, 9]);
  buffer.fill(buffer.rows[4], lines(5, 6, 7, 8, 9), true);
  assert.deepEqual(numbers(buffer), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("a gap without lines is removed", () => {
  const buffer = new LogBuffer();
  buffer.add(lines(1));
  buffer.addGap(1, 5);
  buffer.fill(buffer.rows[1], [], false);
  assert.deepEqual(numbers(buffer), [1]);
});

test("the buffer is bounded: the oldest lines are dropped, and it reports that there are older ones", () => {
  const buffer = new LogBuffer(1000);
  buffer.hasOlder = false;
  for (let start = 0; start < 5000; start += 100) buffer.add(Array.from({ length: 100 }, (_, n) => line(start + n)));
  assert.ok(buffer.rows.length <= 1000);
  assert.equal(buffer.last, 4999);
  assert.equal(buffer.hasOlder, true);
  assert.equal(buffer.rows.length + buffer.dropped, 5000);
});

test("terminal colours become classes, and other control sequences are removed", () => {
  assert.deepEqual(ansiParts("plain <b>"), [{ text: "plain <b>", className: "" }]);
  assert.deepEqual(ansiParts("\x1b[1;31mred\x1b[0m then \x1b[38;5;200mx\x1b[2Kend"), [
    { text: "red", className: "ansi-1 ansi-bold" },
    { text: " then ", className: "" },
    { text: "x", className: "" },
    { text: "end", className: "" },
  ]);
  assert.deepEqual(ansiParts("\x1b]0;title\x07a\x00b\x1b"), [{ text: "a", className: "" }, { text: "b", className: "" }]);
});

test("a line that overwrites itself is shown in its last state", () => {
  assert.deepEqual(ansiParts("10 %\r50 %\r100 %"), [{ text: "100 %", className: "" }]);
  assert.deepEqual(ansiParts("done\r"), [{ text: "done", className: "" }]);
});
