// Attributes whose changes did not fit (they were too large to send) are asked for again, while somebody looks at them.

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
      continue; // it is gone, or the connection is: the next change, or the next snapshot, tells
    }
  }
  replan();
}

/** Keep a component's attributes fresh while the view is shown; of null, those of all components. */
export function useFresh(component) {
  useEffect(() => {
    const look = () => (component === null ? [...model.stale.keys()].slice(0, 10) : [component]).forEach(refresh);
    look();
    const timer = setInterval(look, EVERY);
    return () => clearInterval(timer);
  }, [component]);
}
