// Views that are fetched when they are first shown, or when the browser has nothing better to do.

import { html, signal, useMemo } from "./html.js";

const waiting = [];

const Missing = () => html`<section class="view"><p class="problem" role="alert">This view could not be loaded.</p>
  <p><button type="button" class="button" onClick=${() => location.reload()}>Load the page again</button></p></section>`;

const KEY = "lightwork.again";
const SELDOM = 10_000;

/** A module that did not arrive is not asked for again by the browser; the page is, and its hash keeps the place. */
function again() {
  try {
    const last = Number(sessionStorage.getItem(KEY) ?? 0);
    if (Date.now() - last < SELDOM) return undefined;
    sessionStorage.setItem(KEY, String(Date.now()));
  } catch {
    return undefined; // it is not known how often: people decide
  }
  location.reload();
  return () => null;
}

function Failed() {
  const View = useMemo(() => again() ?? Missing, []);
  return html`<${View} />`;
}

/** A component that a module exports, in whose place nothing is shown until the module is there. */
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
        // Nothing happens to a page in use for the sake of a view that nobody has asked for.
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

/** Fetch all of them now. */
export function fetchLate() {
  for (const fetch of waiting) fetch();
}
