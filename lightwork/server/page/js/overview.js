// The overview: works by stage, usage, recent failures and calls in progress.

import { get } from "./api.js";
import { CallsTable } from "./calls.js";
import { NumericCharts } from "./chart.js";
import { bytes, count, percent, plural } from "./format.js";
import { html, useEffect, useState } from "./html.js";
import { StageIcon } from "./icons.js";
import { link } from "./route.js";
import { isOver, STAGES, stageName } from "./stages.js";
import { anyWork, app as theApp, calls as callsVersion, freshUsage, model, tree, usage, wantUsage } from "./store.js";
import { Ago, Clock, Empty, Facts, Section } from "./ui.js";

const MAX_FAILURES = 20;
const FEW = 6;
const MAX_RUNNING = 12;

function Counts() {
  anyWork.value;
  tree.value;
  const counts = {};
  for (const one of model.works.values()) counts[one.stage] = (counts[one.stage] ?? 0) + 1;
  return html`<ul class="tiles" aria-label="Works by status">
    ${STAGES.map((stage) => html`<li key=${stage}><a class=${`tile stage-${stage}`} data-empty=${!counts[stage]} href=${link(["works"], { stage })}>
      <${StageIcon} stage=${stage} /><span class="tile-number num">${count(counts[stage] ?? 0)}</span><span class="tile-name">${stageName(stage)}</span></a></li>`)}
  </ul>`;
}

function Load() {
  useEffect(wantUsage, []);
  usage.value;
  anyWork.value;
  let cpu = 0;
  let memory = 0;
  let processes = 0;
  const samples = [...model.usage.keys()].map(freshUsage).filter(Boolean);
  for (const one of samples) {
    cpu += one.cpu;
    memory += one.memory;
    processes += one.processes;
  }
  const queued = { running: 0, pending: 0, succeeded: 0, failed: 0 };
  for (const one of model.works.values()) for (const stage in queued) queued[stage] += one.calls?.[stage] ?? 0;
  return html`<dl class="figures">
    <div><dt>Calls running</dt><dd class="num">${count(queued.running)}</dd></div>
    <div><dt>Calls waiting</dt><dd class="num">${count(queued.pending)}</dd></div>
    <div><dt>Calls succeeded</dt><dd class="num">${count(queued.succeeded)}</dd></div>
    <div><dt>Calls failed</dt><dd class="num">${count(queued.failed)}</dd></div>
    <div><dt>CPU of all works</dt><dd class="num">${samples.length ? percent(cpu) : "–"}</dd></div>
    <div><dt>Memory of all works</dt><dd class="num">${samples.length ? bytes(memory) : "–"}</dd></div>
    <div><dt>Processes</dt><dd class="num">${samples.length ? count(processes) : "–"}</dd></div>
  </dl>`;
}

function useFailures() {
  const [found, setFound] = useState([]);
  callsVersion.value;
  const run = theApp.value?.run;
  useEffect(() => {
    let isOld = false;
    get(["app"]).then((answer) => !isOld && setFound(answer.failures ?? []), () => {}); // on an error, only failures from the feed are shown
    return () => {
      isOld = true;
    };
  }, [run]);
  const all = new Map(found.map((one) => [one.id, one]));
  for (const one of model.calls.values()) if (one.stage === "failed") all.set(one.id, { ...all.get(one.id), ...one });
  return [...all.values()].sort((a, b) => (b.ended_at ?? 0) - (a.ended_at ?? 0)).slice(0, MAX_FAILURES);
}

function Calls() {
  const [isAll, setAll] = useState(false);
  const failures = useFailures();
  const running = [...model.calls.values()].filter((one) => !isOver(one.stage)).reverse();
  const shown = running.slice(0, MAX_RUNNING).map(withoutArguments);
  return html`
    <${Section} title="Recent failures" aside=${failures.length > 0 && html`<span class="faint num">${plural(failures.length, "call")}</span>`}>
      ${failures.length ? html`<${CallsTable} items=${failures.slice(0, isAll ? MAX_FAILURES : FEW).map(withoutArguments)} withWork third="Message" />
        ${failures.length > FEW && html`<p><button type="button" class="link" onClick=${() => setAll(!isAll)}>${isAll ? "Show fewer" : `Show ${failures.length - FEW} more`}</button></p>`}` : html`<${Empty} title="No failures">Failed calls are listed here, with a link to their traceback.<//>`}
    <//>
    <${Section} title="In progress" aside=${running.length > MAX_RUNNING && html`<a href=${link(["timeline"])}>all ${count(running.length)} in the timeline</a>`}>
      ${shown.length ? html`<${CallsTable} items=${shown} withWork third="Message" />` : html`<${Empty} title="No calls in progress">A call appears here when the flow makes it.<//>`}
    <//>`;
}

const withoutArguments = (call) => ({ ...call, args: undefined, message: call.message ?? call.error?.message });

function About() {
  const app = theApp.value;
  if (!app) return null;
  return html`<${Facts} items=${[
    ["Root flow", html`<code>${app.root}</code>`],
    ["File", app.file && html`<code>${app.file}</code>`],
    ["Started", html`<${Clock} time=${app.started_at} />, <${Ago} time=${app.started_at} />`],
    ["Host", html`${app.host}, process <span class="num">${app.pid}</span>`],
    ["Works connect to", html`<code>${app.address}</code>`],
    ["Runtime", app.runtime],
    ["Journal", app.journal && html`<code>${app.journal}</code>`],
    ["lightwork", html`<span class="num">${app.version}</span>, Python <span class="num">${app.python}</span>`],
    ["Run", html`<code>${app.run}</code>`],
    ["API", html`<a href="docs">documentation</a>, <a href="metrics">metrics</a>`],
  ]} />`;
}

export const Overview = () => html`<section class="view overview">
  <h1 class="hidden">Overview</h1>
  <${Counts} />
  <${Load} />
  <${Calls} />
  <${NumericCharts} component="root" />
  <${Section} title="About this run"><${About} /><//>
</section>`;
