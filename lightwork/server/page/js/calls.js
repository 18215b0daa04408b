// Calls of works: lists of calls, the details of one call, and the dialog that makes a call.

import { get, post } from "./api.js";
import { brief, pretty } from "./format.js";
import { html, useEffect, useState } from "./html.js";
import { Icon } from "./icons.js";
import { link } from "./route.js";
import { isOver, stageName } from "./stages.js";
import { calls as callsVersion, model } from "./store.js";
import { ask, askFirst, Button, Clock, Elapsed, Empty, Facts, notice, Problem, Section, Stage, Traceback, Value } from "./ui.js";
import { fromInput } from "./values.js";

const PAGE = 100;
const REFRESH = 300;

/** Return a call's arguments as {args, kwargs}, from any of the shapes that the server sends. */
function argumentsOf(args) {
  if (args && typeof args === "object" && Array.isArray(args.args)) return { args: args.args, kwargs: args.kwargs ?? {} };
  if (Array.isArray(args)) return { args, kwargs: {} };
  return { args: [], kwargs: args && typeof args === "object" ? args : {} };
}

/** The arguments of a call in Python's notation. */
export function Arguments({ args }) {
  if (args === undefined || args === null) return html`<span class="faint">…</span>`;
  const { args: positional, kwargs } = argumentsOf(args);
  const texts = [...positional.map((one) => brief(one, 60)), ...Object.entries(kwargs).map(([name, one]) => `${name}=${brief(one, 60)}`)];
  return html`<code class="ellipsis">(${texts.join(", ")})</code>`;
}

// --- calling ---------------------------------------------------------------------------------------

const VAR = { "*": "args", "**": "kwargs" };

/** The input field of one parameter. It takes JSON; an empty field means the default. */
function field(parameter, given) {
  const { name, type, required } = parameter;
  const start = given === undefined ? "" : pretty(given);
  const lines = Math.min(10, Math.max(1, start.split("\n").length));
  return html`<label key=${name} class="field">
    <span class="field-name"><code>${name}</code>${type && html`<span class="faint">${type}</span>`}${required && html`<span class="faint">required</span>`}</span>
    <textarea name=${`arg:${name}`} rows=${lines} spellcheck=${false} placeholder=${required ? "JSON" : `JSON; default ${brief(parameter.default ?? null, 60)}`}>${start}</textarea>
  </label>`;
}

function readField(form, name) {
  const text = String(form.get(`arg:${name}`) ?? "");
  if (text.trim() === "") return undefined;
  try {
    return fromInput(text);
  } catch {
    const shown = text.trim().slice(0, 60);
    throw new Error(`${name} must be JSON, got ${shown}. Write text in quotes: ${JSON.stringify(shown)}`);
  }
}

/** Return the dialog that calls a work. It has a field for each parameter, filled with `args` if they are given. */
export function CallDialog({ name, detail, args }) {
  const parameters = (detail?.parameters ?? []).filter((one) => !String(one.name).startsWith("*"));
  const variable = (detail?.parameters ?? []).filter((one) => String(one.name).startsWith("*"));
  const before = args ? argumentsOf(args) : { args: [], kwargs: {} };
  const given = { ...Object.fromEntries(before.args.map((one, index) => [parameters[index]?.name, one])), ...before.kwargs };
  return {
    title: `Call ${name}`,
    confirm: "Call",
    body: html`<div class="fields">
      ${detail?.signature && html`<p class="faint"><code>run${detail.signature}</code></p>`}
      ${parameters.map((one) => field(one, given[one.name]))}
      ${variable.map((one) => field({ ...one, name: VAR[String(one.name).replace(/[^*]/g, "")] ?? one.name, type: one.name, required: false, default: one.name.startsWith("**") ? {} : [] }))}
      ${parameters.length + variable.length === 0 && html`<p class="faint">This work takes no arguments.</p>`}
    </div>`,
    run: async (form) => {
      const kwargs = {};
      for (const one of parameters) {
        const value = readField(form, one.name);
        if (value !== undefined) kwargs[one.name] = value;
        else if (one.required) throw new Error(`${one.name} is required`);
      }
      const more = variable.length ? readField(form, "kwargs") : undefined;
      const rest = variable.length ? readField(form, "args") : undefined;
      const call = await post(["works", name, "calls"], { args: rest ?? [], kwargs: { ...kwargs, ...more } });
      notice(`Call ${call.id} is ${stageName(call.stage)}`);
      location.hash = link(["works", name, "calls", String(call.id)]);
    },
  };
}

export const cancelCall = (call) =>
  askFirst({
    title: `Cancel call ${call.id}?`,
    text: `The run of ${call.work} is cancelled, and code that awaits the call is notified. If a plain run ignores the cancellation, its process is stopped.`,
    confirm: "Cancel call",
    run: async () => {
      await post(["calls", String(call.id), "cancel"]);
      notice(`Cancellation of call ${call.id} requested`);
    },
  });

export async function retryCall(call) {
  const made = await post(["calls", String(call.id), "retry"]);
  notice(`Retried as call ${made.id}`);
  location.hash = link(["works", made.work, "calls", String(made.id)]);
}

// --- lists -----------------------------------------------------------------------------------------

export function CallsTable({ items, withWork = false, third = "Arguments" }) {
  return html`<table class="table calls"><thead><tr><th class="right">Call</th>${withWork && html`<th>Work</th>`}<th>Status</th><th>${third}</th><th>Submitted</th><th class="right">Took</th><th><span class="hidden">Actions</span></th></tr></thead><tbody>
    ${items.map((call) => html`<tr key=${call.id}>
      <td class="num right"><a href=${link(["works", call.work, "calls", String(call.id)])}>${call.id}</a></td>
      ${withWork && html`<td class="name"><a class="plain" href=${link(["works", call.work])}>${call.work}</a></td>`}
      <td><${Stage} stage=${call.stage} reason=${call.reason} />${call.cached && html` <span class="tag">cached</span>`}${call.attempt > 1 && html` <span class="tag">attempt ${call.attempt}</span>`}</td>
      <td class="arguments"><a class="plain" href=${link(["works", call.work, "calls", String(call.id)])}>${call.args === undefined ? html`<span class="ellipsis">${call.message ?? ""}</span>` : html`<${Arguments} args=${call.args} />`}</a></td>
      <td><${Clock} time=${call.submitted_at} /></td>
      <td class="right"><${Elapsed} from=${call.started_at} to=${call.ended_at} /></td>
      <td class="right row-actions">${isOver(call.stage)
        ? html`<${Button} kind="quiet" icon="retry" label=${`Retry call ${call.id}`} title="Call again with the same arguments" iconOnly run=${() => retryCall(call)} />`
        : html`<${Button} kind="quiet" icon="close" label=${`Cancel call ${call.id}`} title="Cancel" iconOnly run=${() => cancelCall(call)} />`}</td>
    </tr>`)}
  </tbody></table>`;
}

/** The calls of a work, newest first. Changes from the feed are shown at once. */
export function CallsList({ work }) {
  const [stage, setStage] = useState("");
  const [limit, setLimit] = useState(PAGE);
  const [page, setPage] = useState({ items: null, total: 0, error: null });
  callsVersion.value;
  const newest = Math.max(0, ...[...model.calls.values()].filter((one) => one.work === work).map((one) => one.id));
  useEffect(() => {
    let isOld = false;
    const timer = setTimeout(async () => {
      try {
        const found = await get(["works", work, "calls"], { stage, limit: Math.min(limit, 1000) });
        if (!isOld) setPage({ ...found, error: null });
      } catch (error) {
        if (!isOld) setPage((before) => ({ ...before, error }));
      }
    }, page.items ? REFRESH : 0);
    return () => {
      isOld = true;
      clearTimeout(timer);
    };
  }, [stage, limit, newest]);
  const known = new Set((page.items ?? []).map((one) => one.id));
  const fresh = [...model.calls.values()].filter((one) => one.work === work && !known.has(one.id) && one.id > Math.max(0, ...known) && (!stage || one.stage === stage));
  const items = [...fresh.sort((a, b) => b.id - a.id), ...(page.items ?? []).map((one) => ({ ...one, ...model.calls.get(one.id), args: one.args }))];
  return html`<div class="stack">
    <div class="bar"><select aria-label="Which calls" value=${stage} onChange=${(event) => setStage(event.target.value)}>
      <option value="">All calls</option>${["pending", "running", "succeeded", "failed", "stopped"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>
      <span class="faint num">${page.items ? `${items.length} of ${Math.max(page.total, items.length)}` : ""}</span></div>
    ${page.error && html`<${Problem} error=${page.error} />`}
    ${items.length ? html`<${CallsTable} items=${items} />` : page.items && html`<${Empty} icon="call" title="No calls">Press “Call…” to make a call, or wait until the flow makes one.<//>`}
    ${page.items && page.total > page.items.length && limit < 1000 && html`<p><button type="button" class="button" onClick=${() => setLimit(limit + 200)}>Show older calls</button></p>`}
  </div>`;
}

// --- one call --------------------------------------------------------------------------------------

export function CallPage({ id, detail }) {
  const [found, setFound] = useState({ call: null, error: null });
  callsVersion.value;
  const live = model.calls.get(id);
  useEffect(() => {
    let isOld = false;
    get(["calls", String(id)]).then(
      (call) => !isOld && setFound({ call, error: null }),
      (error) => !isOld && setFound((before) => ({ ...before, error })),
    );
    return () => {
      isOld = true;
    };
  }, [id, live?.stage, live?.attempt]);
  const call = found.call && { ...found.call, ...live };
  if (!call) return found.error ? html`<${Problem} error=${found.error} />` : html`<p class="faint">Loading…</p>`;
  const again = () => ask(CallDialog({ name: call.work, detail, args: call.args }));
  return html`<div class="stack">
    <div class="bar"><a class="plain" href=${link(["works", call.work, "calls"])}>Calls</a><${Icon} name="chevron" /><strong class="num">${call.id}</strong><${Stage} stage=${call.stage} reason=${call.reason} />
      <span class="spacer"></span>
      ${isOver(call.stage)
        ? html`<${Button} icon="retry" label="Retry" title="Call again with the same arguments" run=${() => retryCall(call)} /><${Button} icon="edit" label="Edit and call…" run=${again} disabled=${!detail} />`
        : html`<${Button} kind="danger-quiet" icon="close" label="Cancel" run=${() => cancelCall(call)} />`}</div>
    <${Facts} items=${[
      ["Submitted", html`<${Clock} time=${call.submitted_at} milliseconds />`],
      ["Started", html`<${Clock} time=${call.started_at} milliseconds />`],
      ["Ended", html`<${Clock} time=${call.ended_at} milliseconds />`],
      ["Waited", html`<${Elapsed} from=${call.submitted_at} to=${call.started_at ?? call.ended_at} />`],
      ["Took", html`<${Elapsed} from=${call.started_at} to=${call.ended_at} />`],
      ["Attempt", html`<span class="num">${call.attempt}</span>`],
      ["From the cache", call.cached ? "yes" : "no"],
      ["Joined by", call.joined > 0 && html`<span class="num">${call.joined}</span> other calls`],
      ["Hash", html`<code class="ellipsis">${call.hash}</code>`],
    ]} />
    ${found.call.error ? html`<${Section} title="Error"><${Traceback} error=${found.call.error} /><//>` : call.message && html`<p class=${`message-box stage-${call.stage}`}>${call.message}</p>`}
    <${Section} title="Arguments"><${Value} value=${found.call.args ?? null} /><//>
    ${call.stage === "succeeded" && html`<${Section} title="Result"><${Value} value=${found.call.result} /><//>`}
  </div>`;
}
