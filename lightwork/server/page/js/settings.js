// The user's settings, stored in this browser: theme, time zone, times of log lines. They also work without storage.

import { effect, signal } from "./html.js";

function stored(name, fallback) {
  const key = `lightwork.${name}`;
  let first = fallback;
  try {
    first = JSON.parse(localStorage.getItem(key) ?? JSON.stringify(fallback));
  } catch {
    // Storage is disabled, or has an invalid value: use the fallback.
  }
  const setting = signal(first);
  effect(() => {
    const text = JSON.stringify(setting.value);
    try {
      localStorage.setItem(key, text);
    } catch {
      // Storage is disabled: the setting lasts as long as the page.
    }
  });
  return setting;
}

/** "system", "light" or "dark". */
export const theme = stored("theme", "system");
/** Whether times are shown in UTC. */
export const utc = stored("utc", false);
/** Whether log lines carry their time. */
export const logTimes = stored("logTimes", true);

const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** Whether the page is dark at this moment. */
export const isDark = signal(false);

function settle() {
  isDark.value = theme.value === "dark" || (theme.value === "system" && systemDark.matches);
  document.documentElement.dataset.theme = isDark.value ? "dark" : "light";
}

effect(settle);
systemDark.addEventListener("change", settle);
