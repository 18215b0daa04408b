// Smaller views: the user interfaces of the app, the schedules and the runtimes.

import { get, post } from "./api.js";
import { html, useEffect, useState } from "./html.js";
import { Icon } from "./icons.js";
import { link, route } from "./route.js";
import { anyWork, hasInterface, layout, model, now, schedules, tree } from "./store.js";
import { duration } from "./format.js";
import { Button, Clock, Empty, notice, Problem, Stage, Tabs } from "./ui.js";

// --- user interfaces of the app ----------------------------------------------------------------------

/** Return the URL for a frame; null if it is not http or https. */
export function frameTarget(target, base = document.baseURI) {
  if (!target) return null;
  try {
    const url = new URL(target, base);
    return url.protocol === "http:" || url.protocol === "https:" ? url : null;
  } catch {
    return null;
  }
}

/**
 * Return the sandbox permissions of a frame. A frame of this page's origin must not get allow-same-origin, because its
 * scripts could remove the sandbox.
 */
const sandbox = (url) => `allow-scripts allow-forms allow-popups allow-downloads allow-modals${url.origin === location.origin ? "" : " allow-same-origin"}`;

const Frame = ({ url, name }) => html`<iframe class="frame" key=${url.href} src=${url.href} title=${name} sandbox=${sandbox(url)} referrerpolicy="no-referrer" allow="fullscreen; clipboard-write"></iframe>`;

/** `above` lists the components that contain these tabs, so that no component is shown inside itself. */
function Interface({ item, name, path, place, above }) {
  if (item?.kind === "tabs" && item.tabs?.length) {
    const chosen = item.tabs.find((tab) => tab.name === place[0]) ?? item.tabs[0];
    const inner = chosen.content && !above.includes(chosen.content) ? layout.value[chosen.content] : null;
    return html`<div class="app-tabs">
      <${Tabs} label=${`Tabs of ${name}`} current=${chosen.name} items=${item.tabs.map((tab) => ({ key: tab.name, label: tab.name, href: link(["app", ...path, tab.name]) }))} />
      <${Interface} key=${chosen.name} item=${inner?.kind === "tabs" ? inner : { kind: "url", target: chosen.target }} name=${chosen.name} path=${[...path, chosen.name]} place=${place.slice(1)} above=${[...above, chosen.content]} />
    </div>`;
  }
  const url = frameTarget(item?.target);
  if (!url) return html`<${Empty} icon="app" title=${`${name} has no user interface yet`}>It appears here when the component answers at its address.<//>`;
  return html`<div class="framed"><div class="frame-bar"><span class="faint ellipsis">${url.href}</span><a class="button quiet" href=${url.href} target="_blank" rel="noreferrer noopener"><${Icon} name="external" /><span>Open</span></a></div><${Frame} url=${url} name=${name} /></div>`;
}

export function AppView() {
  if (!hasInterface())
    return html`<section class="view"><${Empty} icon="app" title="The app has no user interface">Return tabs, an address or a frontend from <code>configure_layout</code> of the root flow.<//></section>`;
  return html`<section class="view app-view"><${Interface} item=${layout.value.root} name="The app" path=${[]} place=${route.value.parts} above=${["root"]} /></section>`;
}

// --- schedules ---------------------------------------------------------------------------------------

export function SchedulesView() {
  const items = schedules.value;
  return html`<section class="view">
    <h1>Schedules</h1>
    ${items.length === 0
      ? html`<${Empty} icon="schedules" title="No schedules">A flow adds a schedule with <code>self.schedule("0 4 * * *")</code>.<//>`
      : html`<table class="table"><thead><tr><th>Pattern</th><th>Flow</th><th>Line or key</th><th>Last</th><th>Next</th><th class="right">In</th><th>Due</th><th></th></tr></thead><tbody>
        ${items.map((one) => html`<tr key=${`${one.flow} ${one.key}`}>
          <td><code>${one.pattern}</code></td><td>${one.flow}</td><td class="message"><code class="faint">${one.key.startsWith(`${one.pattern} `) ? one.key.slice(one.pattern.length + 1) : one.key}</code></td>
          <td><${Clock} time=${one.last} /></td><td><${Clock} time=${one.next} /></td>
          <td class="num right">${one.next > now.value ? duration(Math.ceil(one.next - now.value)).replace(".0", "") : "now"}</td>
          <td>${one.is_true ? html`<span class="tag">due</span>` : ""}</td>
          <td class="right"><${Button} icon="play" label="Trigger" title="Fire now, in addition to the pattern" run=${async () => { await post(["schedules", "trigger"], { flow: one.flow, key: one.key }); notice("Triggered"); }} /></td></tr>`)}
      </tbody></table>`}
  </section>`;
}

// --- runtimes ----------------------------------------------------------------------------------------

export function RuntimesView() {
  const [found, setFound] = useState({ items: null, error: null });
  const version = tree.value;
  anyWork.value;
  useEffect(() => {
    get(["runtimes"]).then((answer) => setFound({ items: answer.items, error: null }), (error) => setFound({ items: null, error }));
  }, [version]);
  const stages = new Map();
  for (const one of model.works.values()) {
    const of = stages.get(one.runtime) ?? {};
    of[one.stage] = (of[one.stage] ?? 0) + 1;
    stages.set(one.runtime, of);
  }
  return html`<section class="view">
    <h1>Runtimes</h1>
    ${found.error && html`<${Problem} error=${found.error} />`}
    ${found.items?.length === 0 && html`<${Empty} icon="runtimes" title="No runtimes">A runtime appears here when a work uses it.<//>`}
    ${found.items?.length > 0 && html`<table class="table"><thead><tr><th>Profile</th><th>Kind</th><th class="right">Works</th><th>By status</th><th>Note</th></tr></thead><tbody>
      ${found.items.map((one) => html`<tr key=${one.profile}><td><strong>${one.profile}</strong></td><td><code>${one.kind}</code></td><td class="num right">${one.works}</td>
        <td class="wrap-cells">${Object.entries(stages.get(one.profile) ?? {}).map(([stage, number]) => html`<span key=${stage} class="with-number"><${Stage} stage=${stage} /><span class="num faint">${number}</span></span>`)}</td>
        <td class="message">${one.note}</td></tr>`)}
    </tbody></table>`}
  </section>`;
}
