// The rows of the list of works: the components as a tree, or the works that match a filter. Pure functions.

/** A node: {key, name, kind: "flow"|"work"|"group", depth, children, stages, total}. A name is keys joined by dots. */
function node(name) {
  return { key: name.slice(name.lastIndexOf(".") + 1), name, kind: "group", depth: 0, children: [], stages: {}, total: 0 };
}

/** Build the tree of all components. A list or dict of components becomes a group. */
export function buildTree(components) {
  const nodes = new Map();
  const roots = [];
  const need = (name) => {
    let found = nodes.get(name);
    if (found) return found;
    nodes.set(name, (found = node(name)));
    const dot = name.lastIndexOf(".");
    if (dot < 0) roots.push(found);
    else {
      const parent = need(name.slice(0, dot));
      found.depth = parent.depth + 1;
      parent.children.push(found);
    }
    return found;
  };
  for (const component of components) need(component.name).kind = component.kind;
  return { nodes, roots };
}

/** Count the works below each node by stage. */
export function countStages(tree, works) {
  for (const one of tree.nodes.values()) {
    one.stages = {};
    one.total = 0;
  }
  for (const work of works) {
    let name = work.name;
    for (let dot = name.lastIndexOf("."); dot > 0; dot = name.lastIndexOf(".")) {
      name = name.slice(0, dot);
      const above = tree.nodes.get(name);
      if (!above) continue;
      above.stages[work.stage] = (above.stages[work.stage] ?? 0) + 1;
      above.total += 1;
    }
  }
}

/** Return the nodes in order, without the descendants of closed nodes. */
export function flatten(tree, isClosed) {
  const rows = [];
  const visit = (one) => {
    rows.push(one);
    if (one.children.length && !isClosed(one)) for (const child of one.children) visit(child);
  };
  for (const root of tree.roots) visit(root);
  return rows;
}

/**
 * Return a function that tells whether a work matches a text. A text with * or ? is a glob for the name. Any other text
 * must be part of the name or of the class. Case is ignored.
 */
export function matcher(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return () => true;
  if (!/[*?]/.test(wanted)) return (work) => work.name.toLowerCase().includes(wanted) || (work.type ?? "").toLowerCase().includes(wanted);
  const glob = new RegExp(`^${wanted.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*+/g, ".*").replaceAll("?", ".")}$`);
  return (work) => glob.test(work.name.toLowerCase());
}

const RANK = ["failed", "running", "pending", "started", "succeeded", "stopped", "not_started"];

let natural = (a, b) => {
  // Created on first use: it costs more time than all other code before the first view.
  natural = new Intl.Collator("en", { numeric: true }).compare;
  return natural(a, b);
};

/** Return a comparison of works by name, stage (those that need attention first), latest status, or usage. */
export function comparer(key, usage) {
  switch (key) {
    case "stage":
      return (a, b) => RANK.indexOf(a.stage) - RANK.indexOf(b.stage) || natural(a.name, b.name);
    case "since":
      return (a, b) => (b.since ?? 0) - (a.since ?? 0);
    case "cpu":
    case "memory":
      return (a, b) => (usage.get(b.name)?.[key] ?? -1) - (usage.get(a.name)?.[key] ?? -1);
    default:
      return (a, b) => natural(a.name, b.name);
  }
}
