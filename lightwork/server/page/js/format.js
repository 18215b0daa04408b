// Formats numbers, times and values as text.

import { utc } from "./settings.js";
import { kindOf, mark, sizeOf } from "./values.js";

const pad = (number, width = 2) => String(number).padStart(width, "0");

/** Return the parts of a moment, in the time zone that the user has chosen. */
function parts(seconds) {
  const date = new Date(seconds * 1000);
  return utc.value
    ? [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(),
       date.getUTCSeconds(), date.getUTCMilliseconds()]
    : [date.getFullYear(), date.getMonth() + 1, date.getDate(), date.getHours(), date.getMinutes(),
       date.getSeconds(), date.getMilliseconds()];
}

/** 14:03:59, or 14:03:59.120 */
export function clock(seconds, milliseconds = false) {
  if (!Number.isFinite(seconds)) return "–";
  const [, , , hour, minute, second, thousandth] = parts(seconds);
  const text = `${pad(hour)}:${pad(minute)}:${pad(second)}`;
  return milliseconds ? `${text}.${pad(thousandth, 3)}` : text;
}

/** Return the time of day, with the date if it is not today. */
export function when(seconds, today, milliseconds = false) {
  if (!Number.isFinite(seconds)) return "–";
  const [year, month, day] = parts(seconds);
  const [thisYear, thisMonth, thisDay] = parts(today);
  const text = clock(seconds, milliseconds);
  return year === thisYear && month === thisMonth && day === thisDay ? text : `${pad(month)}-${pad(day)} ${text}`;
}

/** 2026-11-25 14:03:59 UTC */
export function moment(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const [year, month, day] = parts(seconds);
  return `${year}-${pad(month)}-${pad(day)} ${clock(seconds)}${utc.value ? " UTC" : ""}`;
}

/** 12 ms, 3.4 s, 2 m 05 s, 3 h 12 m, 2 d 4 h */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds < 0.001) return seconds === 0 ? "0 s" : "<1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${pad(Math.floor(seconds % 60))} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${pad(Math.floor((seconds % 3600) / 60))} m`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** Return a duration without tenths, for texts that change every second and must not flicker. */
export const ago = (seconds) => (seconds < 1 ? "now" : duration(Math.floor(seconds) >= 10 ? seconds : Math.floor(seconds)).replace(".0", ""));

export function bytes(count) {
  if (!Number.isFinite(count)) return "–";
  if (count < 1000) return `${count} B`;
  for (const [unit, size] of [["kB", 1e3], ["MB", 1e6], ["GB", 1e9]])
    if (count < size * 1000) return `${(count / size).toFixed(count / size < 10 ? 1 : 0)} ${unit}`;
  return `${(count / 1e12).toFixed(1)} TB`;
}

export const percent = (value) => (Number.isFinite(value) ? `${value < 10 ? value.toFixed(1) : Math.round(value)} %` : "–");

/** 12 345 */
export const count = (number) => (Number.isFinite(number) ? String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f") : "–");

/** "1 call", "2 calls". */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Return a number roughly as Python prints it. */
export function number(value) {
  const found = mark(value);
  if (found) return String(value[found]);
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  return String(value);
}

const SHORT = 300;

/** Return a summary of a Value in one line. */
export function brief(value, length = SHORT) {
  const cut = (text) => (text.length > length ? `${text.slice(0, length)}…` : text);
  switch (kindOf(value)) {
    case "none":
      return "None";
    case "bool":
      return value ? "True" : "False";
    case "number":
      return number(value);
    case "text":
      return cut(JSON.stringify(value.length > length ? value.slice(0, length) : value));
    case "bytes":
      return `${bytes(value.$bytes)} of bytes`;
    case "cut":
      return `${bytes(value.$cut)}: ${cut(String(value.preview))}`;
    case "list":
      return sizeOf(value) === 0 ? "[]" : `list of ${count(value.length)}`;
    case "set":
      return sizeOf(value) === 0 ? "set()" : `set of ${count(sizeOf(value))}`;
    default:
      return sizeOf(value) === 0 ? "{}" : `dict of ${count(sizeOf(value))}`;
  }
}

/** Return a Value as JSON over several lines. */
export const pretty = (value) => JSON.stringify(value, null, 2) ?? "null";

/** Split a component's name into the prefix and the last part. */
export function splitName(name) {
  const at = name.lastIndexOf(".") + 1;
  return [name.slice(0, at), name.slice(at)];
}
