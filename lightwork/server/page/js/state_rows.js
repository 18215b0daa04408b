// The rows of the state tree: components, their attributes and nested values. Pure functions.

import { buildTree } from "./tree.js";
import { entries, isContainer, sizeOf } from "./values.js";

export const CHUNK = 200;
export const MAX_ROWS = 20_000;

export const idOf = (component, path) => `${component}\n${JSON.stringify(path)}`;

/**
 * Return the rows of all open nodes.
 *
 * @param {object} given
 * @param {Map} given.components
 * @param {Map} given.vars
 * @param {string} given.root Name of the top component.
 * @param {Set<string>} given.open Ids of open rows.
 * @param {Map<string, number>} given.more How many children of a long container are shown, by id.
 * @param {string} given.search Show only attributes and components whose names contain this text.
 * @param {object} [given.tree] Result of `buildTree`, if the caller has it.
 */
export function stateRows({ components, vars, root, open, more, search, tree = buildTree(components.values()) }) {
  const rows = [];
  const wanted = search.trim().toLowerCase();
  const hits = wanted ? (text) => text.toLowerCase().includes(wanted) : null;

  const value = (component, path, key, content, depth) => {
    if (rows.length >= MAX_ROWS) return;
    const id = idOf(component, path);
    const canOpen = isContainer(content) && sizeOf(content) > 0;
    const isOpen = canOpen && open.has(id);
    rows.push({ id, component, path, key, value: content, depth, canOpen, isOpen, kind: "value" });
    if (!isOpen) return;
    const items = entries(content);
    const shown = more.get(id) ?? CHUNK;
    for (const [index, item] of items.slice(0, shown)) value(component, [...path, index], index, item, depth + 1);
    if (items.length > shown) rows.push({ id: `${id} more`, of: id, kind: "more", left: items.length - shown, depth: depth + 1 });
  };

  /** Add the rows of a node. Return whether any of them matches the search. */
  const visit = (node, depth) => {
    if (rows.length >= MAX_ROWS) return false;
    const { name } = node;
    const component = components.get(name);
    const id = idOf(name, []);
    const attributes = component ? Object.entries(vars.get(name) ?? {}) : [];
    const isHit = hits !== null && component !== undefined && hits(name);
    const matches = hits ? attributes.filter(([key]) => hits(key)) : attributes;
    const place = rows.length;
    const isOpen = open.has(id) || (hits !== null && (matches.length > 0 || !component));
    rows.push({
      id, component: name, path: [], key: node.key, depth, kind: component ? "component" : "group", type: component?.type,
      role: component?.kind, size: node.children.length, canOpen: attributes.length + node.children.length > 0, isOpen,
    });
    let isFound = hits ? isHit || matches.length > 0 : true;
    if (isOpen) for (const [key, content] of isHit ? attributes : matches) value(name, [key], key, content, depth + 1);
    if (isOpen || hits) for (const below of node.children) isFound = visit(below, depth + 1) || isFound;
    if (!isFound) rows.length = place;
    return isFound;
  };

  const top = tree.nodes.get(root);
  if (top) visit(top, 0);
  return rows;
}
