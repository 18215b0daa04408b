// The live state: the attributes of all components as a tree. It highlights changes, and edits and charts values.

import { patch } from "./api.js";
import { AttributeChart } from "./chart.js";
import { brief, pretty, splitName } from "./format.js";
import { classes, computed, html, signal, useEffect, useMemo, useRef, useState } from "./html.js";
import { Icon, StageIcon } from "./icons.js";
import { VirtualList } from "./list.js";
import { route, setQuery } from "./route.js";
import { anyState, litAt, LIT, model, stateOf, tree, work as workSignal } from "./store.js";
import { buildTree } from "./tree.js";
import { useFresh } from "./stale.js";
import { CHUNK, idOf, stateRows } from "./state_rows.js";
import { ask, Button, Empty, failed, notice, Value } from "./ui.js";
import { asNumber, fromInput, isContainer, kindOf } from "./values.js";

const ROW = 24;

const theTree = computed(() => {
  tree.value;
  return buildTree(model.components.values());
});

const open = signal(new Set([idOf("root", [])]));
const more = signal(new Map());
const editing = signal(null);
const charted = signal([]); // [{component, attribute, isList}]

function toggle(id) {
  const next = new Set(open.value);
  if (!next.delete(id)) next.add(id);
  open.value = next;
}

function canChart(row) {
  if (row.kind !== "value" || row.path.length !== 1) return false;
  if (asNumber(row.value) !== null) return true;
  return kindOf(row.value) === "list" && row.value.length > 1 && row.value.every((one) => asNumber(one) !== null);
}

function chart(row) {
  const [attribute] = row.path;
  const isThere = (one) => one.component === row.component && one.attribute === attribute;
  charted.value = charted.value.some(isThere)
    ? charted.value.filter((one) => !isThere(one))
    : [...charted.value, { component: row.component, attribute, isList: kindOf(row.value) === "list" }];
}

// --- editing ---------------------------------------------------------------------------------------

async function save(row, value) {
  await patch(["state", row.component], { edits: [{ path: row.path, value }] });
}

const canEdit = (row) => row.kind === "value" && !["cut", "bytes", "set"].includes(kindOf(row.value)) && !inSet(row);

/** Return whether a row is a member of a set. Members have no path: a set can only be changed as a whole. */
function inSet(row) {
  return kindOf(model.valueAt(row.component, row.path.slice(0, -1))) === "set";
}

function edit(row) {
  if (!canEdit(row)) return;
  if (!isContainer(row.value)) {
    editing.value = row.id;
    return;
  }
  ask({
    title: `Edit ${row.component}.${row.path.join(".")}`,
    confirm: "Save",
    body: html`<label class="field"><span class="field-name">JSON; it replaces the whole value</span><textarea name="value" class="tall" spellcheck=${false}>${pretty(row.value)}</textarea></label>`,
    run: async (form) => save(row, fromInput(String(form.get("value")))),
  });
}

function Editor({ row }) {
  const box = useRef();
  const [error, setError] = useState(null);
  useEffect(() => {
    // Set here and not as a property: a new render, which shows an error, would reset the user's text.
    box.current.value = kindOf(row.value) === "text" ? JSON.stringify(row.value) : brief(row.value, Infinity);
    box.current.select();
  }, []);
  const done = () => {
    editing.value = null;
    document.querySelector(".state-tree .vlist")?.focus();
  };
  const submit = async () => {
    let value;
    try {
      value = fromInput(box.current.value);
    } catch {
      setError("Not valid JSON. Write text in quotes.");
      return;
    }
    done();
    try {
      await save(row, value);
      notice("Saved");
    } catch (problem) {
      failed(problem);
    }
  };
  return html`<span class="editor">
    <input ref=${box} aria-label=${`New value of ${row.key}`} aria-invalid=${error !== null} title=${error ?? "Enter saves, Esc cancels"}
      onClick=${(event) => event.stopPropagation()} onInput=${() => setError(null)}
      onKeyDown=${(event) => { event.stopPropagation(); if (event.key === "Enter") submit(); if (event.key === "Escape") done(); }} />
    ${error && html`<span class="editor-error" role="alert">${error}</span>`}
  </span>`;
}

// --- rows ------------------------------------------------------------------------------------------

/** Return the class that highlights a row. It alternates, so that a second change restarts the animation. */
function flash(row) {
  const since = litAt(row.component, JSON.stringify(row.path));
  if (!since || performance.now() - since > LIT) return "";
  return Math.floor(since / 16) % 2 ? "lit-a" : "lit-b";
}

function ComponentRow({ row, isActive, id }) {
  stateOf(row.component).value;
  const work = row.role === "work" ? workSignal(row.component).value : null;
  const lit = row.isOpen ? "" : flash(row);
  return html`<div id=${id} class=${classes("row state-row component-row", isActive && "active")} role="treeitem" aria-level=${row.depth + 1}
    aria-expanded=${row.canOpen ? row.isOpen : undefined} data-depth=${Math.min(row.depth, 12)} onClick=${() => row.canOpen && toggle(row.id)}>
    <span class="row-name"><span class=${classes("twisty", row.isOpen && "open", !row.canOpen && "none")}><${Icon} name="chevron" /></span>
      ${work ? html`<${StageIcon} stage=${work.stage} />` : html`<${Icon} name=${row.kind === "group" ? "group" : "flow"} />`}<strong class="ellipsis">${row.key}</strong><span class="faint num">${row.type ?? row.size}</span>
      ${lit && html`<i class=${`lit-dot ${lit}`}></i>`}</span>
  </div>`;
}

function ValueRow({ row, isActive, id }) {
  const kind = kindOf(row.value);
  const isCharted = charted.value.some((one) => one.component === row.component && one.attribute === row.path[0]);
  return html`<div id=${id} class=${classes("row state-row", isActive && "active")} role="treeitem" aria-level=${row.depth + 1} aria-expanded=${row.canOpen ? row.isOpen : undefined}
    data-depth=${Math.min(row.depth, 12)} data-path=${`${row.component}.${row.path.join(".")}`} onClick=${() => row.canOpen && toggle(row.id)} onDblClick=${() => edit(row)}>
    <span class="row-name"><span class=${classes("twisty", row.isOpen && "open", !row.canOpen && "none")}><${Icon} name="chevron" /></span>
      <code class="key ellipsis">${typeof row.key === "string" ? row.key : String(row.key)}</code></span>
    ${editing.value === row.id
      ? html`<${Editor} row=${row} />`
      : html`<span class="ellipsis"><code class=${`value value-${kind} ${flash(row)}`}>${brief(row.value)}</code></span>
        <span class=${classes("row-tools", isCharted && "shown")}>
          ${canChart(row) && html`<button type="button" class="button quiet icon-only" tabIndex=${-1} aria-pressed=${isCharted} title="Chart (c)" aria-label=${`Chart ${row.key}`} onClick=${(event) => { event.stopPropagation(); chart(row); }}><${Icon} name="chart" /></button>`}
          ${canEdit(row) && html`<button type="button" class="button quiet icon-only" tabIndex=${-1} title="Edit (Enter)" aria-label=${`Edit ${row.key}`} onClick=${(event) => { event.stopPropagation(); edit(row); }}><${Icon} name="edit" /></button>`}
          ${(kind === "text" || kind === "cut") && html`<button type="button" class="button quiet icon-only" tabIndex=${-1} title="Show the whole value" aria-label=${`Show ${row.key}`} onClick=${(event) => { event.stopPropagation(); show(row); }}><${Icon} name="search" /></button>`}
        </span>`}
  </div>`;
}

const show = (row) => ask({ title: `${row.component}.${row.path.join(".")}`, body: typeof row.value === "string" ? html`<pre class="block tall">${row.value}</pre>` : html`<${Value} value=${row.value} />` });

const MoreRow = ({ row, isActive, id }) => html`<div id=${id} class=${classes("row state-row", isActive && "active")} role="treeitem" aria-level=${row.depth + 1} data-depth=${Math.min(row.depth, 12)}>
  <button type="button" class="link" tabIndex=${-1} onClick=${() => showMore(row)}>… ${row.left} more</button></div>`;

function showMore(row) {
  more.value = new Map(more.value).set(row.of, (more.value.get(row.of) ?? CHUNK) + 5 * CHUNK);
}

export function StateTree({ root = "root" }) {
  const [search, setSearch] = useState(route.value.query.get("find") ?? "");
  const cursor = useMemo(() => signal(null), []);
  const rootId = idOf(root, []);
  useFresh(root === "root" ? null : root);
  useEffect(() => {
    if (!open.value.has(rootId)) toggle(rootId);
  }, [rootId]);
  anyState.value;
  const rows = stateRows({ tree: theTree.value, components: model.components, vars: model.vars, root, open: open.value, more: more.value, search });
  const at = rows.findIndex((row) => row.id === cursor.value);
  const key = (event) => {
    const row = rows[at];
    if (!row) return;
    if (event.key === "Enter") {
      event.preventDefault();
      if (row.kind === "more") showMore(row);
      else if (canEdit(row)) edit(row);
      else if (row.canOpen) toggle(row.id);
    } else if (event.key === "ArrowRight" && row.canOpen && !row.isOpen) toggle(row.id);
    else if (event.key === "ArrowLeft") {
      if (row.isOpen) toggle(row.id);
      else for (let above = at - 1; above >= 0; above -= 1) if (rows[above].depth < row.depth) { cursor.value = rows[above].id; break; }
    } else if (event.key === "c" && canChart(row)) chart(row);
    else if (event.key === " ") { event.preventDefault(); if (row.canOpen) toggle(row.id); }
  };
  const find = (text) => {
    setSearch(text);
    setQuery({ find: text || undefined });
  };
  return html`<div class="state-tree">
    <div class="bar"><label class="search"><${Icon} name="search" /><input type="search" data-search placeholder="Find an attribute or a component" aria-label="Find in the state" value=${search} onInput=${(event) => find(event.target.value)} /></label>
      <span class="faint hint"><kbd>Enter</kbd> edits, <kbd>c</kbd> charts</span></div>
    ${charted.value.length > 0 && html`<div class="charts pinned">${charted.value.map((one) => html`<div key=${`${one.component} ${one.attribute}`} class="pinned-chart">
      <${AttributeChart} ...${one} title=${`${splitName(one.component)[1]}.${one.attribute}`} />
      <${Button} kind="quiet" icon="close" label=${`Close the chart of ${one.attribute}`} iconOnly run=${() => { charted.value = charted.value.filter((other) => other !== one); }} /></div>`)}</div>`}
    ${rows.length === 0
      ? html`<${Empty} icon="state" title="Nothing matches">The state consists of the public attributes that <code>__init__</code> sets.<//>`
      : html`<${VirtualList} count=${rows.length} rowHeight=${ROW} label="state" role="tree" active=${at} onMove=${(index) => { cursor.value = rows[index].id; }} onKey=${key}
          keyOf=${(index) => rows[index].id}
          row=${(index) => {
            const row = rows[index];
            const props = { row, isActive: index === at, id: `state-${index}` };
            if (row.kind === "component" || row.kind === "group") return html`<${ComponentRow} ...${props} />`;
            return row.kind === "more" ? html`<${MoreRow} ...${props} />` : html`<${ValueRow} ...${props} />`;
          }} />`}
  </div>`;
}

export const StateView = () => html`<section class="view state-view"><${StateTree} root="root" /></section>`;
