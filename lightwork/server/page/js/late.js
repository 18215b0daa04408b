// Views whose modules are loaded when they are first shown, or after the first view has been drawn.

import { html, signal, useMemo } from "./html.js";

const waiting = [];

const Missing = () => html`<section class="view"><p class="problem" role="alert">This view could not be loaded.</p>
  <p><button type="button" class="button" onClick=${() => location.reload()}>Reload the page</button></p></section>`;

const KEY = "lightwork.again";
const SELDOM = 10_000;

/** Reload the page, because a browser does not retry a module that failed to load. The hash keeps the place. */
function again() {
  try {
    const last = Number(sessionStorage.getItem(KEY) ?? 0);
    if (Date.now() - last < SELDOM) return undefined;
    sessionStorage.setItem(KEY, String(Date.now()));
  } catch {
    return undefined; // without storage the number of reloads is unknown: the user decides
  }
  location.reload();
  return () => null;
}

function Failed() {
  const View = useMemo(() => again() ?? Missing, []);
  return html`<${View} />`;
}

/** Return a component that a module exports. It is empty until the module is loaded. */
export function late(load, name) {
  const found = signal(null);
  let isAsked = false;
  const fetch = () => {
    if (isAsked) return;
    isAsked = true;
    load().then(
      (module) => {
        found.value = module[name];
      },
      () => {
        // Reload only if the view is shown: a view that the user has not opened must not disturb the page.
        found.value = Failed;
      },
    );
  };
  waiting.push(fetch);
  return (props) => {
    const View = found.value;
    if (View) return html`<${View} ...${props} />`;
    fetch();
    return html`<section class="view" aria-busy="true"></section>`;
  };
}

/** Load all late modules now. */
export function fetchLate() {
  for (const fetch of waiting) fetch();
}
