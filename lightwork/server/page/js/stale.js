// Fetches stale attributes while a view shows them. An attribute is stale if a change could not be applied to it,
// because its value was too large to be sent.

import { get, serverTime } from "./api.js";
import { useEffect } from "./html.js";
import { model, replan } from "./store.js";

const EVERY = 1500;

async function refresh(component) {
  const attributes = model.stale.get(component);
  if (!attributes?.size) return;
  model.stale.delete(component);
  for (const attribute of attributes) {
    try {
      const found = await get(["state", component], { path: JSON.stringify([attribute]) });
      model.refresh(component, attribute, found.value, serverTime());
    } catch {
      continue; // the attribute or the connection is gone: the next change or snapshot corrects the value
    }
  }
  replan();
}

/** Keep the attributes of a component up to date while the view is shown; null means all components. */
export function useFresh(component) {
  useEffect(() => {
    const check = () => (component === null ? [...model.stale.keys()].slice(0, 10) : [component]).forEach(refresh);
    check();
    const timer = setInterval(check, EVERY);
    return () => clearInterval(timer);
  }, [component]);
}
