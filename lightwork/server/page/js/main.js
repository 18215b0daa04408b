// The frame around the views: navigation bar, connection state and keyboard shortcuts.

import { post } from "./api.js";
import { classes, html, render, useEffect, useRef } from "./html.js";
import { Icon } from "./icons.js";
import { fetchLate, late } from "./late.js";
import { Overview } from "./overview.js";
import { go, link, route } from "./route.js";
import { theme, utc } from "./settings.js";
import { anyWork, app, connection, hasInterface, model, newRun, now, retryNow, schedules, start, tree } from "./store.js";
import { duration } from "./format.js";
import { ask, askFirst, Button, Dialogs, isDialogOpen, notice, Notices, Traceback } from "./ui.js";
import { WorksView } from "./works.js";

const LogsView = late(() => import("./logs.js"), "LogsView");
const StateView = late(() => import("./state.js"), "StateView");
const TimelineView = late(() => import("./timeline.js"), "TimelineView");
const AppView = late(() => import("./more_views.js"), "AppView");
const SchedulesView = late(() => import("./more_views.js"), "SchedulesView");
const RuntimesView = late(() => import("./more_views.js"), "RuntimesView");

const VIEWS = [
  { key: "overview", label: "Overview", view: Overview },
  { key: "works", label: "Works", view: WorksView, count: () => (tree.value, model.works.size) },
  { key: "logs", label: "Logs", view: LogsView },
  { key: "state", label: "State", view: StateView },
  { key: "timeline", label: "Timeline", view: TimelineView },
  { key: "app", label: "App", view: AppView, isShown: () => hasInterface() },
  { key: "schedules", label: "Schedules", view: SchedulesView, count: () => schedules.value.length },
  { key: "runtimes", label: "Runtimes", view: RuntimesView },
];

const shownViews = () => VIEWS.filter((one) => one.isShown?.() ?? true);

// --- connection --------------------------------------------------------------------------------------

function Connection() {
  const { name, retryAt } = connection.value;
  if (name === "open") return html`<span class="connection open" role="status" title="Connected: changes appear as they happen"><i class="dot"></i><span>live</span></span>`;
  if (name === "denied") return html`<span class="connection lost" role="status"><i class="dot"></i>no access</span>`;
  const wait = retryAt === null ? 0 : Math.max(0, Math.ceil(retryAt / 1000 - now.value));
  const isFirst = model.run === null;
  return html`<button type="button" class=${classes("connection", "lost")} role="status" onClick=${retryNow} title="Try again now">
    <i class="dot"></i><span>${name === "lost" && wait > 0 ? `lost, retry in ${wait} s` : name !== "lost" && isFirst ? "connecting" : "lost, reconnecting"}</span></button>`;
}

function Banner() {
  const failed = app.value?.error;
  if (failed) {
    const show = () => ask({ title: "Why the app has failed", body: html`<${Traceback} error=${failed} />` });
    return html`<div class="banner danger" role="alert"><span class="ellipsis">The app has failed: ${failed.type}${failed.message ? `: ${failed.message}` : ""}</span><button type="button" class="button" onClick=${show}>Traceback</button></div>`;
  }
  const { name } = connection.value;
  if (name === "lost" && model.run !== null)
    return html`<div class="banner warning" role="alert"><span>The connection to the app is lost. The page shows old data and reconnects by itself.</span><button type="button" class="button" onClick=${retryNow}>Try now</button></div>`;
  if (newRun.value)
    return html`<div class="banner" role="status"><span>The app was restarted. This is a new run; the data of the previous run is no longer shown.</span><button type="button" class="button" onClick=${() => { newRun.value = null; }}>Understood</button></div>`;
  return null;
}

// --- the token ---------------------------------------------------------------------------------------

function Login() {
  const enter = (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim();
    // The server stores the token in a cookie and redirects to the address without it.
    if (token) location.assign(`./?token=${encodeURIComponent(token)}${location.hash}`);
  };
  return html`<main class="login" data-page><form class="card" onSubmit=${enter}>
    <h1>This app needs a token</h1>
    <p><code>lightwork run</code> prints it in the address, after <code>?token=</code>. The configuration has it as <code>http_token</code>.</p>
    <label class="field"><span class="field-name">Token</span><input name="token" type="password" autocomplete="current-password" required autofocus /></label>
    <button type="submit" class="button primary">Enter</button>
  </form></main>`;
}

// --- bar ---------------------------------------------------------------------------------------------

const THEMES = { system: "light", light: "dark", dark: "system" };

function stopApp() {
  askFirst({
    title: "Stop the app?",
    text: "The flow and all works are stopped gracefully. Calls in progress end as stopped. The app is not started again.",
    confirm: "Stop app",
    run: async () => {
      await post(["app", "stop"], { message: "stopped from the dashboard" });
      notice("Stop of the app requested");
    },
  });
}

function Bar() {
  const views = useRef();
  const one = app.value;
  const running = one?.stage === "running";
  const current = route.value.view;
  useEffect(() => views.current.querySelector("[aria-current]")?.scrollIntoView({ inline: "nearest", block: "nearest" }), [current]);
  return html`<header class="top" data-page>
    <a class="brand" href=${link(["overview"])} title=${one?.file ?? "lightwork"}><svg class="logo" viewBox="0 0 16 16" aria-hidden="true"><path d="M2 12.5h12M4 9.5h8M6 6.5h4M7.3 3.5h1.4" /></svg><span class="ellipsis">${one?.name ?? "lightwork"}</span></a>
    ${one && html`<span class="faint num run-time" title="Time since the start of the run">${running ? duration(Math.max(0, Math.floor(now.value - one.started_at))).replace(".0", "") : one.stage}</span>`}
    <nav class="views" aria-label="Views" ref=${views}>
      ${shownViews().map((view, index) => html`<a key=${view.key} href=${link([view.key])} aria-current=${view.key === current ? "page" : undefined} title=${`${view.label} (${index + 1})`}>
        <${Icon} name=${view.key} /><span>${view.label}</span>${view.count?.() > 0 && html`<span class="tab-count num">${view.count()}</span>`}</a>`)}
    </nav>
    <div class="tools">
      <${Connection} />
      <button type="button" class="button quiet" title="Time zone of the displayed times" aria-pressed=${utc.value} onClick=${() => { utc.value = !utc.value; }}>${utc.value ? "UTC" : "Local"}</button>
      <button type="button" class="button quiet icon-only" title=${`Theme: ${theme.value}`} aria-label=${`Theme: ${theme.value}; change`} onClick=${() => { theme.value = THEMES[theme.value] ?? "system"; }}><${Icon} name=${{ system: "system", light: "sun", dark: "moon" }[theme.value]} /></button>
      <button type="button" class="button quiet icon-only help-button" title="Keys (?)" aria-label="Keys" onClick=${showKeys}><${Icon} name="help" /></button>
      <${Button} kind="danger-quiet" icon="stop" label="Stop app" run=${stopApp} disabled=${!running || connection.value.name !== "open"} />
    </div>
  </header>`;
}

// --- keys --------------------------------------------------------------------------------------------

const KEYS = [
  ["1 … 8", "open a view, numbered from the left"],
  ["/", "search or filter the view"],
  ["↑ ↓ or j k", "move in a list"],
  ["← →", "close and open a branch"],
  ["Enter", "open a work, edit a value"],
  ["c", "chart a number of the state"],
  ["Esc", "close a work, leave a field"],
  ["t", "change the theme"],
  ["u", "switch between local time and UTC"],
  ["?", "show these keys"],
];

function showKeys() {
  ask({ title: "Keys", body: html`<dl class="keys">${KEYS.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>` });
}

const isField = (element) => element instanceof HTMLElement && (element.matches("input:not([type=checkbox]), textarea, select") || element.isContentEditable);

/** Focus the search field of the view at `place`. If the view is still loading, focus it when the view is ready. */
function enterSearch(place) {
  if (location.hash !== place) return false;
  const box = [...document.querySelectorAll("[data-search]")].pop();
  const isComing = !box && document.querySelector("#main > [aria-busy]") !== null;
  if (box) box.focus();
  else if (isComing) requestAnimationFrame(() => enterSearch(place));
  return Boolean(box) || isComing;
}

function pressed(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isDialogOpen()) return;
  if (event.key === "Escape") {
    if (isField(event.target)) event.target.blur();
    else document.querySelector("[data-escape]")?.click();
    return;
  }
  if (isField(event.target)) return;
  const view = /^[1-9]$/.test(event.key) ? shownViews()[Number(event.key) - 1] : null;
  if (view) go([view.key]);
  else if (event.key === "/") {
    if (enterSearch(location.hash)) event.preventDefault();
  } else if (event.key === "?") showKeys();
  else if (event.key === "t") theme.value = THEMES[theme.value] ?? "system";
  else if (event.key === "u") utc.value = !utc.value;
}

// --- the page ----------------------------------------------------------------------------------------

function Main() {
  if (app.value === null) return html`<main class="main waiting" aria-busy="true"></main>`;
  const { view } = route.value;
  const { view: View } = VIEWS.find((one) => one.key === view) ?? VIEWS[0];
  return html`<main class=${`main main-${view}`} id="main"><${View} /></main>`;
}

function Title() {
  anyWork.value;
  useEffect(() => {
    const failed = [...model.works.values()].filter((one) => one.stage === "failed").length;
    document.title = `${failed ? `(${failed} failed) ` : ""}${app.value?.name ?? "lightwork"} · lightwork`;
  });
  return null;
}

function Page() {
  if (connection.value.name === "denied") return html`<${Login} />`;
  return html`<${Bar} /><${Banner} /><${Main} /><${Dialogs} /><${Notices} /><${Title} />`;
}

addEventListener("keydown", pressed);
render(html`<${Page} />`, document.getElementById("page"));
start();
// After the first view has been drawn, load the others, so that they open without delay.
addEventListener("load", () => setTimeout(fetchLate, 400));
