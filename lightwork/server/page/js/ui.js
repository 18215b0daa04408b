// Small parts that the views share: stages, times, buttons, placeholders, dialogs, notices.

import { brief, duration, moment, pretty, when } from "./format.js";
import { classes, html, signal, useLayoutEffect, useRef, useState } from "./html.js";
import { Icon, StageIcon } from "./icons.js";
import { stageName } from "./stages.js";
import { now } from "./store.js";
import { kindOf } from "./values.js";

export function Stage({ stage, reason }) {
  return html`<span class=${`stage stage-${stage}`}>
    <${StageIcon} stage=${stage} /><span class="stage-name">${stageName(stage)}</span>
    ${reason && html`<span class="stage-reason">${reason}</span>`}
  </span>`;
}

/** The time since a moment. Its tooltip is the moment itself. */
export function Ago({ time, suffix = " ago" }) {
  if (!time) return html`<span class="faint">–</span>`; // 0 means that the work has no status yet
  const seconds = Math.max(0, now.value - time);
  return html`<time class="num" title=${moment(time)}>${seconds < 1 ? "now" : duration(Math.floor(seconds)).replace(".0", "") + suffix}</time>`;
}

export const Clock = ({ time, milliseconds = false }) =>
  time == null
    ? html`<span class="faint">–</span>`
    : html`<time class="num" title=${moment(time)}>${when(time, now.value, milliseconds)}</time>`;

/** The time from one moment to another, or until now. */
export function Elapsed({ from, to }) {
  if (from == null) return html`<span class="faint">–</span>`;
  const seconds = (to ?? now.value) - from;
  return html`<span class="num">${to == null ? duration(Math.max(0, Math.floor(seconds))).replace(".0", "") : duration(seconds)}</span>`;
}

/** A button. It is disabled until `run` has finished. An error of `run` becomes a notice. */
export function Button({ icon, label, run, kind = "", title, disabled = false, iconOnly = false }) {
  const [isBusy, setBusy] = useState(false);
  const press = async (event) => {
    event.stopPropagation();
    setBusy(true);
    try {
      await run(event);
    } catch (error) {
      failed(error);
    } finally {
      setBusy(false);
    }
  };
  return html`<button type="button" class=${classes("button", kind, iconOnly && "icon-only")} title=${title ?? (iconOnly ? label : undefined)}
    aria-label=${iconOnly ? label : undefined} disabled=${disabled || isBusy} onClick=${press}>
    ${icon && html`<${Icon} name=${icon} />`}${!iconOnly && html`<span>${label}</span>`}
  </button>`;
}

/** A placeholder for an empty view. It tells the user what to do. */
export const Empty = ({ icon, title, children }) => html`<div class="empty">
  ${icon && html`<${Icon} name=${icon} />`}
  <p class="empty-title">${title}</p>
  ${children && html`<p>${children}</p>`}
</div>`;

export const Problem = ({ error }) => html`<p class="problem" role="alert">${error.message}</p>`;

/** A list of facts: [[name, content], ...]. Facts without content are left out. */
export const Facts = ({ items }) => html`<dl class="facts">
  ${items.filter(([, content]) => content !== undefined && content !== null && content !== false && content !== "").map(
    ([name, content]) => html`<div key=${name}><dt>${name}</dt><dd>${content}</dd></div>`,
  )}
</dl>`;

export const Section = ({ title, aside, children, className }) => html`<section class=${classes("section", className)}>
  <header class="section-head"><h2>${title}</h2>${aside}</header>
  ${children}
</section>`;

// --- values ----------------------------------------------------------------------------------------

const TOKENS = /("(?:[^"\\]|\\.)*"\s*:)|("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]*)|(true|false|null)/g;
const LONGEST = 20_000;

function colored(text) {
  const spans = [];
  let end = 0;
  for (const found of text.matchAll(TOKENS)) {
    if (found.index > end) spans.push(text.slice(end, found.index));
    const kind = found[1] ? "key" : found[2] ? "text" : found[3] ? "number" : "word";
    spans.push(html`<span class=${`value-${kind}`}>${found[0]}</span>`);
    end = found.index + found[0].length;
  }
  spans.push(text.slice(end));
  return spans;
}

/** A whole Value, over several lines. */
export function Value({ value }) {
  const [isWhole, setWhole] = useState(false);
  if (value === undefined) return html`<span class="faint">–</span>`;
  const kind = kindOf(value);
  if (kind === "none" || kind === "bool" || kind === "number") return html`<code class=${`value value-${kind}`}>${brief(value)}</code>`;
  if (kind === "cut") return html`<pre class="block">${String(value.preview)}<span class="faint">…\n${brief({ $cut: value.$cut, preview: "" })} in total; the server sends only the beginning.</span></pre>`;
  const text = pretty(value);
  const shown = isWhole || text.length <= LONGEST ? text : text.slice(0, LONGEST);
  return html`<pre class="block">${shown.length > LONGEST ? shown : colored(shown)}${
    shown.length < text.length && html`<button type="button" class="link" onClick=${() => setWhole(true)}>… show all ${text.length} characters</button>`
  }</pre>`;
}

export const Traceback = ({ error }) => html`<div class="traceback">
  <p class="traceback-head"><strong>${error.type}</strong>${error.message ? `: ${error.message}` : ""}</p>
  ${error.traceback && html`<div class="with-copy"><pre class="block">${error.traceback}</pre><${Copy} text=${error.traceback} /></div>`}
</div>`;

export const Copy = ({ text, label = "Copy" }) =>
  html`<${Button} kind="quiet copy" icon="copy" label=${label} iconOnly run=${async () => {
    await navigator.clipboard.writeText(text);
    notice("Copied");
  }} />`;

// --- notices ---------------------------------------------------------------------------------------

const notices = signal([]);
let nextNotice = 0;

export function notice(text, kind = "info") {
  const id = (nextNotice += 1);
  notices.value = [...notices.value.slice(-3), { id, text, kind }];
  setTimeout(() => dismiss(id), kind === "error" ? 10_000 : 3000);
}

export const failed = (error) => notice(error.message, "error");

function dismiss(id) {
  notices.value = notices.value.filter((one) => one.id !== id);
}

export const Notices = () => html`<div class="notices" role="status" aria-live="polite">
  ${notices.value.map(({ id, text, kind }) => html`<div key=${id} class=${`notice ${kind}`}>
    <span>${text}</span>
    <button type="button" class="button quiet icon-only" aria-label="Dismiss" onClick=${() => dismiss(id)}><${Icon} name="close" /></button>
  </div>`)}
</div>`;

// --- dialogs ---------------------------------------------------------------------------------------

const dialog = signal(null);

/** Show a dialog: {title, body, confirm, kind, run}. If `run` throws, the dialog stays open and shows the error. */
export function ask(given) {
  dialog.value = given;
}

export function closeDialog() {
  dialog.value = null;
}

/** Ask for confirmation before a destructive action. */
export const askFirst = ({ title, text, confirm, run }) =>
  ask({ title, body: html`<p>${text}</p>`, confirm, kind: "danger", run });

function DialogBox({ title, body, confirm, kind = "primary", run }) {
  const box = useRef();
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  useLayoutEffect(() => {
    box.current.showModal(); // in a layout effect: as soon as the dialog is visible, Escape must close it
    box.current.querySelector("input, textarea, select, .button.primary, .button.danger")?.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await run(new FormData(event.target));
      closeDialog();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  return html`<dialog ref=${box} class="dialog" aria-labelledby="dialog-title" onClose=${closeDialog}
    onClick=${(event) => event.target === box.current && closeDialog()}>
    <form onSubmit=${submit} noValidate>
      <h2 id="dialog-title">${title}</h2>
      <div class="dialog-body">${body}</div>
      ${error && html`<${Problem} error=${error} />`}
      <div class="dialog-foot">
        <button type="button" class="button" onClick=${closeDialog}>${run ? "Cancel" : "Close"}</button>
        ${run && html`<button type="submit" class=${`button ${kind}`} disabled=${isBusy}>${confirm}</button>`}
      </div>
    </form>
  </dialog>`;
}

export const Dialogs = () => dialog.value && html`<${DialogBox} key=${dialog.value.title} ...${dialog.value} />`;

export const isDialogOpen = () => dialog.value !== null;

// --- tabs ------------------------------------------------------------------------------------------

/** A row of links, of which one is the current place. items: [{key, label, href, count}] */
export const Tabs = ({ items, current, label }) => html`<nav class="tabs" aria-label=${label}>
  ${items.map((item) => html`<a key=${item.key} href=${item.href} aria-current=${item.key === current ? "page" : undefined}>
    ${item.label}${item.count ? html`<span class="tab-count num">${item.count}</span>` : null}
  </a>`)}
</nav>`;
