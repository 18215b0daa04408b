// The page of one work: facts, calls, logs, state, usage and stack, and the buttons that act on it.

import { get, post } from "./api.js";
import { CallDialog, CallPage, CallsList } from "./calls.js";
import { NumericCharts, UsageCharts } from "./chart.js";
import { brief, duration } from "./format.js";
import { html, signal, useEffect, useMemo, useState } from "./html.js";
import { Icon, StageIcon } from "./icons.js";
import { LogView } from "./logs.js";
import { link } from "./route.js";
import { StackView } from "./stack.js";
import { StateTree } from "./state.js";
import { work as workSignal } from "./store.js";
import { Ago, askFirst, ask, Button, Clock, Elapsed, Empty, Facts, notice, Problem, Section, Stage, Tabs, Value } from "./ui.js";
import { mark } from "./values.js";

const REFRESH = 400; // milliseconds between two requests for details that the feed does not send

/** The details of a work that the feed does not send. They are fetched again when the work changes. */
function useDetail(name) {
  const detail = useMemo(() => signal({ data: null, error: null }), [name]);
  const work = workSignal(name).value;
  const trigger = work && `${work.stage} ${work.since} ${work.worker_attempt} ${work.pid}`;
  useEffect(() => {
    let isOver = false;
    const timer = setTimeout(async () => {
      try {
        const data = await get(["works", name]);
        if (!isOver) detail.value = { data, error: null };
      } catch (error) {
        if (!isOver) detail.value = { data: detail.value.data, error };
      }
    }, detail.value.data ? REFRESH : 0);
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [trigger]);
  return detail;
}

const isUp = (work) => work.pid != null || work.stage === "running" || work.stage === "pending" || work.stage === "started";

function Actions({ name, work, detail }) {
  const stop = () =>
    askFirst({
      title: `Stop ${name}?`,
      text: "Its process is stopped. The running call and the waiting calls end as stopped. The state is kept.",
      confirm: "Stop work",
      run: async () => {
        await post(["works", name, "stop"]);
        notice(`Stop of ${name} requested`);
      },
    });
  const call = () => {
    ask(CallDialog({ name, detail: detail.data, args: null }));
  };
  return html`<div class="actions">
    <${Button} kind="primary" icon="call" label="Call…" run=${call} disabled=${!detail.data} title="Call run with arguments" />
    ${isUp(work)
      ? html`<${Button} kind="danger-quiet" icon="stop" label="Stop" run=${stop} />`
      : html`<${Button} icon="play" label="Start" run=${async () => { await post(["works", name, "start"]); notice(`${name} is starting`); }} />`}
  </div>`;
}

function Statuses({ statuses }) {
  if (!statuses?.length) return html`<${Empty} title="No status yet">The first status appears when the work is started or called.<//>`;
  const shown = [...statuses].reverse().slice(0, 200);
  return html`<table class="table statuses"><thead><tr><th>Time</th><th>Status</th><th>Call</th><th>Message</th><th class="right">Duration</th></tr></thead><tbody>
    ${shown.map((one, index) => html`<tr key=${statuses.length - index}>
      <td class="num"><${Clock} time=${one.timestamp} milliseconds /></td>
      <td><${Stage} stage=${one.stage} reason=${one.reason} />${one.count > 1 && html`<span class="faint num"> ×${one.count}</span>`}</td>
      <td class="num faint">${one.call ?? ""}${one.attempt > 1 ? `, attempt ${one.attempt}` : ""}</td>
      <td class="message">${one.message ?? ""}</td>
      <td class="num right faint">${index > 0 ? duration(shown[index - 1].timestamp - one.timestamp) : ""}</td>
    </tr>`)}
  </tbody></table>`;
}

function Attempts({ attempts }) {
  if (!attempts?.length) return html`<${Empty} title="No process yet">Start the work, or call it.<//>`;
  return html`<table class="table"><thead><tr><th class="right">Attempt</th><th>Host</th><th class="right">Process</th><th>Started</th><th class="right">Duration</th><th>How it ended</th></tr></thead><tbody>
    ${[...attempts].reverse().map((one) => html`<tr key=${one.attempt}>
      <td class="num right">${one.attempt}</td><td>${one.host ?? ""}</td><td class="num right">${one.pid ?? ""}</td>
      <td><${Clock} time=${one.started_at} /></td><td class="right"><${Elapsed} from=${one.started_at} to=${one.ended_at} /></td>
      <td class="message">${one.message ?? (one.ended_at ? "" : html`<span class="faint">running</span>`)}</td></tr>`)}
  </tbody></table>`;
}

function Resources({ resources }) {
  if (mark(resources) || typeof resources !== "object") return html`<${Value} value=${resources} />`;
  const items = Object.entries(resources).map(([name, value]) => [name, value !== null && html`<code>${brief(value)}</code>`]);
  return items.some(([, value]) => value) ? html`<${Facts} items=${items} />` : html`<p class="faint">None.</p>`;
}

function About({ name, work, detail }) {
  const data = detail.value.data;
  return html`<div class="stack">
    ${work.message && html`<p class=${`message-box stage-${work.stage}`}><${StageIcon} stage=${work.stage} /><span>${work.message}</span></p>`}
    <${Facts} items=${[
      ["Class", html`<code>${work.type}</code>`],
      ["Signature", data?.signature && html`<code>run${data.signature}</code>`],
      ["Runtime", work.runtime],
      ["Host", work.hostname],
      ["Process", work.pid != null && html`<span class="num">${work.pid}</span>`],
      ["Attempt", work.worker_attempt > 0 && html`<span class="num">${work.worker_attempt}</span>`],
      ["URL", work.url && html`<a href=${/^https?:/.test(work.url) ? work.url : undefined} target="_blank" rel="noreferrer noopener">${work.url}</a>`],
      ["Port", work.port != null && html`<span class="num">${work.port}</span>`],
      ["Calls at once", work.parallel ? html`parallel${work.concurrency > 1 ? html`, <span class="num">${work.concurrency}</span>` : ""}` : "one; the flow waits for its result"],
      ["Timeouts", work.num_timeouts > 0 && html`<span class="num">${work.num_timeouts}</span>`],
    ]} />
    <${NumericCharts} component=${name} />
    <${Section} title="Statuses"><${Statuses} statuses=${data?.statuses} /><//>
    <${Section} title="Processes"><${Attempts} attempts=${data?.attempts} /><//>
    ${data?.resources && html`<${Section} title="Requested resources"><${Resources} resources=${data.resources} /><//>`}
  </div>`;
}

const TABS = [["about", "Overview"], ["calls", "Calls"], ["logs", "Logs"], ["state", "State"], ["usage", "CPU & memory"], ["stack", "Stack"]];

export function WorkPage({ name, place }) {
  const work = workSignal(name).value;
  const detail = useDetail(name);
  const [tab = "about", id] = place;
  if (!work) return html`<section class="work-page"><header class="work-head"><h1>${name}</h1><a class="button quiet icon-only" href=${link(["works"])} aria-label="Close"><${Icon} name="close" /></a></header>
    <${Empty} icon="works" title="Work not found">It was removed, or this link belongs to another app.<//></section>`;
  return html`<section class="work-page" aria-label=${name}>
    <header class="work-head">
      <div class="work-title"><h1 class="ellipsis" title=${name}>${name}</h1><${Stage} stage=${work.stage} reason=${work.reason} /><span class="faint"><${Ago} time=${work.since} suffix="" /></span></div>
      <${Actions} name=${name} work=${work} detail=${detail.value} />
      <a class="button quiet icon-only" href=${link(["works"])} aria-label="Close this work" title="Close (Esc)" data-escape><${Icon} name="close" /></a>
    </header>
    <${Tabs} label="Views of this work" current=${tab} items=${TABS.map(([key, label]) => ({ key, label, href: link(["works", name, ...(key === "about" ? [] : [key])]), count: key === "calls" ? work.calls?.running + work.calls?.pending : 0 }))} />
    <div class=${`work-body tab-${tab}`}>
      ${detail.value.error && !detail.value.data && html`<${Problem} error=${detail.value.error} />`}
      ${tab === "about" && html`<${About} name=${name} work=${work} detail=${detail} />`}
      ${tab === "calls" && (id ? html`<${CallPage} key=${id} id=${Number(id)} detail=${detail.value.data} />` : html`<${CallsList} work=${name} />`)}
      ${tab === "logs" && html`<${LogView} works=${[name]} />`}
      ${tab === "state" && html`<${StateTree} root=${name} />`}
      ${tab === "usage" && html`<${UsageCharts} name=${name} />`}
      ${tab === "stack" && html`<${StackView} name=${name} />`}
    </div>
  </section>`;
}
