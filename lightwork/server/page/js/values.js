// Values as the server sends them, and edits of such values in place.
//
// A Value is JSON. An object whose first key is one of `MARKS` represents a value that JSON cannot express:
// {"$cut": bytes, "preview"}, {"$bytes", "preview"}, {"$set": [...]}, {"$dict": [[key, value], ...]}, {"$float": "nan"},
// {"$int": "digits"} of an integer that a double cannot hold.
// Nothing here touches the DOM, a clock or a socket.

const MARKS = new Set(["$cut", "$bytes", "$set", "$dict", "$float", "$int"]);

/** Return the mark of a Value, "" if it is plain JSON. */
export function mark(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return "";
  for (const key in value) return MARKS.has(key) ? key : "";
  return "";
}

const KINDS = { "": "dict", $cut: "cut", $bytes: "bytes", $set: "set", $dict: "dict", $float: "number", $int: "number" };

/** Return the kind of a Value: list, dict, set, bytes, text, number, bool, none, cut. */
export function kindOf(value) {
  if (value === null || value === undefined) return "none";
  if (Array.isArray(value)) return "list";
  switch (typeof value) {
    case "string":
      return "text";
    case "boolean":
      return "bool";
    case "number":
      return "number";
  }
  return KINDS[mark(value)];
}

export const isContainer = (value) => ["list", "dict", "set"].includes(kindOf(value));

/** Return a Value as a JavaScript number, null if it is not a number. */
export function asNumber(value) {
  if (typeof value === "number") return value;
  const found = mark(value);
  if (found === "$int") return Number(value.$int);
  if (found === "$float") return { nan: NaN, inf: Infinity, "-inf": -Infinity }[value.$float] ?? NaN;
  return null;
}

/** Return [key, value] of each child, in order. The key of a member of a set is its position. */
export function entries(value) {
  switch (kindOf(value)) {
    case "list":
      return value.map((item, index) => [index, item]);
    case "set":
      return value.$set.map((item, index) => [index, item]);
    case "dict":
      return mark(value) ? value.$dict : Object.entries(value);
    default:
      return [];
  }
}

/** Return the number of children of a container. */
export function sizeOf(value) {
  if (Array.isArray(value)) return value.length;
  const found = mark(value);
  if (found === "$set") return value.$set.length;
  return found === "$dict" ? value.$dict.length : Object.keys(value).length;
}

function pairOf(node, key) {
  return node.$dict.find((pair) => pair[0] === key);
}

/** Return the child at a key, undefined if there is none. Only own properties count, because a key can be any text. */
export function child(node, key) {
  if (Array.isArray(node)) return Number.isInteger(key) && key >= 0 ? node[key] : undefined;
  const found = mark(node);
  if (found === "$dict") return pairOf(node, key)?.[1];
  if (found || node === null || typeof node !== "object") return undefined;
  return typeof key === "string" && Object.hasOwn(node, key) ? node[key] : undefined;
}

/** Return the Value at a path, undefined if there is none. */
export function at(root, path) {
  let node = root;
  for (const key of path) {
    node = child(node, key);
    if (node === undefined) return undefined;
  }
  return node;
}

/** Set an own property of an object, even `__proto__`. */
export function put(object, key, value) {
  if (key === "__proto__")
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
  else object[key] = value;
}

function setChild(node, key, value) {
  if (Array.isArray(node)) {
    if (!Number.isInteger(key) || key < 0 || key >= node.length) return false;
    node[key] = value;
    return true;
  }
  const found = mark(node);
  if (node === null || typeof node !== "object" || (found && found !== "$dict")) return false;
  if (!found) {
    if (typeof key === "string" && !(MARKS.has(key) && !Object.hasOwn(node, key))) {
      put(node, key, value);
      return true;
    }
    // A plain object cannot have this key, so convert the dict to pairs.
    const pairs = Object.entries(node);
    for (const [old] of pairs) delete node[old];
    node.$dict = pairs;
  }
  const pair = pairOf(node, key);
  if (pair) pair[1] = value;
  else node.$dict.push([key, value]);
  return true;
}

function deleteChild(node, key) {
  const found = mark(node);
  if (found === "$dict") {
    const index = node.$dict.findIndex((pair) => pair[0] === key);
    if (index < 0) return false;
    node.$dict.splice(index, 1);
    return true;
  }
  if (found || node === null || typeof node !== "object" || Array.isArray(node)) return false;
  if (typeof key !== "string" || !Object.hasOwn(node, key)) return false;
  return delete node[key];
}

// Maximum length of an array that is spread into arguments: the engine's stack limits the number of arguments.
const SPREAD = 10_000;

function splice(list, start, removed, items) {
  if (items.length <= SPREAD) {
    list.splice(start, removed, ...items);
    return;
  }
  const tail = list.splice(start).slice(removed);
  for (const item of items) list.push(item);
  for (const item of tail) list.push(item);
}

function applySplice(node, value) {
  const [start, removed, items] = value ?? [];
  if (!Array.isArray(node) || !Array.isArray(items) || !(start >= 0 && removed >= 0 && start + removed <= node.length))
    return false;
  splice(node, start, removed, items);
  return true;
}

function applyUpdate(node, value) {
  if (mark(node) !== "$set" || !Array.isArray(value)) return false;
  const [added, gone] = value.map((items) => (mark(items) === "$set" ? items.$set : (items ?? [])));
  const lost = new Set(gone.map((item) => JSON.stringify(item)));
  node.$set = node.$set.filter((item) => !lost.has(JSON.stringify(item)));
  for (const item of added) node.$set.push(item);
  return true;
}

/**
 * Apply one state change to the attributes `vars`, in place.
 *
 * @returns {boolean} Whether the change was applied. False means that the path does not exist here, because a value was
 *   cut or was never received; nothing has changed then.
 */
export function applyChange(vars, path, kind, value) {
  const parent = at(vars, path.slice(0, -1));
  const key = path[path.length - 1];
  if (parent === undefined) return false;
  switch (kind) {
    case "set":
      return setChild(parent, key, value);
    case "delete":
      return deleteChild(parent, key);
    case "splice":
      return applySplice(child(parent, key), value);
    case "update":
      return applyUpdate(child(parent, key), value);
    default:
      return false;
  }
}

/** Parse what a user types: JSON, None, True, False, nan or inf. Throws an error for other text. */
export function fromInput(text) {
  const trimmed = text.trim();
  const float = { nan: "nan", inf: "inf", infinity: "inf", "-inf": "-inf", "-infinity": "-inf" }[trimmed.toLowerCase()];
  if (float) return { $float: float };
  if (/^-?\d{16,}$/.test(trimmed) && !Number.isSafeInteger(Number(trimmed))) return { $int: trimmed };
  const python = { None: null, True: true, False: false };
  return Object.hasOwn(python, trimmed) ? python[trimmed] : JSON.parse(trimmed);
}
