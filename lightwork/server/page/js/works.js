// The works of the app, as a tree or as a filtered and sorted list, with the selected work beside it.

import { bytes, count, percent, splitName } from "./format.js";
import { classes, computed, html, signal, useEffect } from "./html.js";
import { Icon, StageIcon } from "./icons.js";
import { late } from "./late.js";
import { VirtualList } from "./list.js";
import { go, link, route, setQuery } from "./route.js";
import { STAGES, stageName } from "./stages.js";
import { anyWork, freshUsage, model, tree as treeVersion, usage, wantUsage, work as workSignal } from "./store.js";
import { buildTree, comparer, countStages, flatten, matcher } from "./tree.js";
import { Ago, Empty, Stage } from "./ui.js";

const WorkPage = late(() => import("./work.js"), "WorkPage");

const ROW = 28;

const search = signal("");
const stages = signal(new Set());
const sort = signal("tree");
const closed = signal(new Set());
const cursor = signal(null); // name of the row that the keyboard has selected

const theTree = computed(() => {
  treeVersion.value;
  return buildTree(model.components.values());
});

const counts = computed(() => {
  anyWork.value;
  treeVersion.value;
  const found = {};
  for (const one of model.works.values()) found[one.stage] = (found[one.stage] ?? 0) + 1;
  return found;
});

const isFiltered = computed(() => search.value.trim() !== "" || stages.value.size > 0 || sort.value !== "tree");

const rows = computed(() => {
  const tree = theTree.value;
  if (!isFiltered.value) {
    const shut = closed.value;
    return flatten(tree, (one) => shut.has(one.name));
  }
  anyWork.value;
  if (sort.value === "cpu" || sort.value === "memory") usage.value;
  const matches = matcher(search.value);
  const wanted = stages.value;
  const found = [...model.works.values()].filter((one) => matches(one) && (wanted.size === 0 || wanted.has(one.stage)));
  if (sort.value !== "tree") found.sort(comparer(sort.value, model.usage));
  return found.map((one) => ({ key: one.name, name: one.name, kind: "work", depth: 0, children: [], flat: true }));
});

const counted = computed(() => {
  anyWork.value;
  const tree = theTree.value;
  countStages(tree, model.works.values());
  return { nodes: tree.nodes };
});

function toggle(name) {
  const next = new Set(closed.value);
  if (!next.delete(name)) next.add(name);
  closed.value = next;
}

/** A bar with the share of each stage among the works below a group. */
function Proportions({ name }) {
  const one = counted.value.nodes.get(name);
  if (!one || one.total === 0) return null;
  const present = STAGES.filter((stage) => one.stages[stage]);
  return html`<span class="proportions" title=${present.map((stage) => `${one.stages[stage]} ${stageName(stage)}`).join(", ")}>
    <svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">${bars(one, present)}</svg>
    <span class="num faint">${count(one.total)}</span>
  </span>`;
}

function bars(one, present) {
  let at = 0;
  return present.map((stage) => {
    const width = (one.stages[stage] / one.total) * 100;
    at += width;
    return html`<rect key=${stage} class=${`fill-${stage}`} x=${at - width} width=${width} height="4" />`;
  });
}

function GroupRow({ one, isActive, id }) {
  const isShut = closed.value.has(one.name);
  const type = model.components.get(one.name)?.type;
  return html`<div id=${id} class=${classes("row group-row", isActive && "active")} role="option" aria-selected=${isActive}
    aria-expanded=${!isShut} data-depth=${Math.min(one.depth, 12)} onClick=${() => { cursor.value = one.name; toggle(one.name); }}>
    <span class="row-name">
      <span class=${classes("twisty", !isShut && "open")}><${Icon} name="chevron" /></span>
      <${Icon} name=${one.kind === "flow" ? "flow" : "group"} /><span class="ellipsis">${one.key}</span>
      ${type && html`<span class="faint type ellipsis">${type}</span>`}
    </span>
    <${Proportions} name=${one.name} />
  </div>`;
}

function Calls({ calls = {} }) {
  return html`<span class="call-counts num">
    ${["pending", "running", "succeeded", "failed"].map((stage) => calls[stage] > 0 && html`<span key=${stage} class=${`stage-${stage}`} title=${`${calls[stage]} ${stage}`}><${StageIcon} stage=${stage} />${count(calls[stage])}</span>`)}
  </span>`;
}

function Usage({ name }) {
  usage.value;
  const found = freshUsage(name);
  return html`<span class="num right col-cpu">${found ? percent(found.cpu) : ""}</span><span class="num right col-memory">${found ? bytes(found.memory) : ""}</span>`;
}

function WorkRow({ one, isActive, isChosen, isNarrow, id }) {
  const work = workSignal(one.name).value;
  if (!work) return html`<div class="row faint">${one.name}</div>`;
  const [before, last] = splitName(one.name);
  return html`<a id=${id} class=${classes("row work-row", isActive && "active", isChosen && "chosen")} role="option" tabIndex=${-1}
    aria-selected=${isChosen} data-depth=${one.flat ? 0 : Math.min(one.depth, 12)} href=${link(["works", one.name])} onClick=${() => { cursor.value = one.name; }}>
    <span class="row-name"><${StageIcon} stage=${work.stage} /><span class="ellipsis">${one.flat && html`<span class="faint">${before}</span>`}${last}</span>
      <span class="faint type ellipsis">${work.type}</span></span>
    <span class="col-stage"><span class=${`stage-${work.stage} stage-name`}>${stageName(work.stage)}</span>${work.reason && html` <span class="faint">${work.reason}</span>`}</span>
    ${!isNarrow && html`<${Calls} calls=${work.calls} /><${Usage} name=${one.name} />
      <span class="ellipsis faint col-where">${work.hostname ?? ""}${work.pid ? html` <span class="num">${work.pid}</span>` : ""}</span>
      <span class="ellipsis faint col-runtime">${work.runtime}</span>`}
    <span class="right col-since"><${Ago} time=${work.since} suffix="" /></span>
  </a>`;
}

function Filters() {
  const shown = rows.value;
  const total = model.works.size;
  return html`<div class="filters">
    <div class="filter-line">
      <label class="search"><${Icon} name="search" /><input type="search" placeholder="Filter works; * matches any text" aria-label="Filter works" data-search
        value=${search.value} onInput=${(event) => { search.value = event.target.value; }}
        onKeyDown=${(event) => { if (event.key === "ArrowDown" || event.key === "Enter") { event.preventDefault(); document.querySelector(".works-list .vlist")?.focus(); move(0); } }} /></label>
      <select aria-label="Sort works" value=${sort.value} onChange=${(event) => { sort.value = event.target.value; }}>
        ${[["tree", "Tree"], ["name", "Name"], ["stage", "Status"], ["since", "Latest change"], ["cpu", "CPU"], ["memory", "Memory"]].map(([key, label]) => html`<option key=${key} value=${key}>${label}</option>`)}
      </select>
    </div>
    <div class="chips" role="group" aria-label="Filter by status">
      ${STAGES.filter((stage) => counts.value[stage] || stages.value.has(stage)).map((stage) => html`<button key=${stage} type="button" class=${`chip stage-${stage}`} aria-pressed=${stages.value.has(stage)} onClick=${() => chooseStage(stage)}>
        <${StageIcon} stage=${stage} />${stageName(stage)}<span class="num">${count(counts.value[stage] ?? 0)}</span></button>`)}
      ${isFiltered.value && html`<span class="faint num" role="status">${count(shown.length)} of ${count(total)}</span>`}
    </div>
  </div>`;
}

function chooseStage(stage) {
  const next = new Set(stages.value);
  if (!next.delete(stage)) next.add(stage);
  stages.value = next;
}

function move(index) {
  const one = rows.value[index];
  if (one) cursor.value = one.name;
}

function key(event, at) {
  const one = rows.value[at];
  if (!one) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    if (one.kind === "work") go(["works", one.name]);
    else toggle(one.name);
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const isShut = closed.value.has(one.name);
    if (one.children.length && isShut === (event.key === "ArrowRight")) toggle(one.name);
    else if (event.key === "ArrowLeft" && one.name.includes(".")) cursor.value = one.name.slice(0, one.name.lastIndexOf("."));
  }
}

function List({ chosen }) {
  const shown = rows.value;
  const at = shown.findIndex((one) => one.name === (cursor.value ?? chosen));
  const isNarrow = chosen !== undefined;
  return html`<div class=${classes("works-list", isNarrow && "narrow")}>
    <${Filters} />
    ${!isNarrow && html`<div class="row row-head" aria-hidden="true"><span>Name</span><span>Status</span><span>Calls</span><span class="right col-cpu">CPU</span><span class="right col-memory">Memory</span><span class="col-where">Host, process</span><span class="col-runtime">Runtime</span><span class="right">Since</span></div>`}
    ${shown.length === 0
      ? html`<${Empty} icon="works" title=${model.works.size ? "No work matches" : "No works yet"}>${model.works.size ? "Clear the filter to see all of them." : "Works appear here when the flow creates them."}<//>`
      : html`<${VirtualList} count=${shown.length} rowHeight=${ROW} recycles label="works" active=${at} onMove=${move} onKey=${(event) => key(event, at)}
          keyOf=${(index) => shown[index].name}
          row=${(index) => shown[index].kind === "work"
            ? html`<${WorkRow} one=${shown[index]} isActive=${index === at} isChosen=${shown[index].name === chosen} isNarrow=${isNarrow} id=${`works-${index}`} />`
            : html`<${GroupRow} one=${shown[index]} isActive=${index === at} id=${`works-${index}`} />`} />`}
  </div>`;
}

export function WorksView() {
  useEffect(wantUsage, []);
  const { parts, query } = route.value;
  const [chosen, ...rest] = parts;
  useEffect(() => {
    const stage = query.get("stage");
    if (stage) {
      stages.value = new Set([stage]);
      setQuery({ stage: undefined });
    }
  }, [query.get("stage")]);
  return html`<div class=${classes("works-view", chosen !== undefined && "with-work")}>
    <${List} chosen=${chosen} />
    ${chosen !== undefined && html`<${WorkPage} key=${chosen} name=${chosen} place=${rest} />`}
  </div>`;
}
