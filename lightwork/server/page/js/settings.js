// What people choose, kept in this browser: theme, time zone, widths. A browser that keeps nothing is no error.

import { effect, signal } from "./html.js";

function kept(name, fallback) {
  const key = `lightwork.${name}`;
  let first = fallback;
  try {
    first = JSON.parse(localStorage.getItem(key) ?? JSON.stringify(fallback));
  } catch {
    // Storage is switched off, or holds something else: the fallback is as good.
  }
  const setting = signal(first);
  effect(() => {
    const text = JSON.stringify(setting.value);
    try {
      localStorage.setItem(key, text);
    } catch {
      // As above: the choice lasts as long as the page.
    }
  });
  return setting;
}

/** "system", "light" or "dark". */
export const theme = kept("theme", "system");
/** Whether times are shown in UTC. */
export const utc = kept("utc", false);
/** Whether log lines carry their time. */
export const logTimes = kept("logTimes", true);

const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** Whether the page is dark now. */
export const isDark = signal(false);

function settle() {
  isDark.value = theme.value === "dark" || (theme.value === "system" && systemDark.matches);
  document.documentElement.dataset.theme = isDark.value ? "dark" : "light";
}

effect(settle);
systemDark.addEventListener("change", settle);
