// The current place in the page. The hash of the address holds it, so every place can be linked to:
// #/works/root.trials.0/logs?search=x

import { computed, signal } from "./html.js";

export function parseHash(hash) {
  const [place, search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = place.split("/").filter(Boolean).map(decoded);
  return { view: parts[0] ?? "overview", parts: parts.slice(1), query: new URLSearchParams(search) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // not a valid escape: use the text as it is
  }
}

export function link(parts, query = {}) {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== ""));
  const text = search.toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

const hash = signal(location.hash);
addEventListener("hashchange", () => {
  hash.value = location.hash;
});

export const route = computed(() => parseHash(hash.value));

export function go(parts, query) {
  location.hash = link(parts, query);
  hash.value = location.hash; // at once, because the event comes later and a key may be pressed before it
}

/** Change the query of the current place without a new entry in the browser's history. */
export function setQuery(changes) {
  const { view, parts, query } = route.value;
  const merged = { ...Object.fromEntries(query), ...changes };
  history.replaceState(null, "", link([view, ...parts], merged));
  hash.value = location.hash;
}
