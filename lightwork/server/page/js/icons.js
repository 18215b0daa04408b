// Icons, as lines on a grid of 16. Each stage has its own shape, so that no information depends on colour alone.

import { html } from "./html.js";

const STAGES = {
  not_started: html`<circle cx="8" cy="8" r="5" stroke-dasharray="2 2.2" />`,
  started: html`<circle cx="8" cy="8" r="5" /><circle cx="8" cy="8" r="1.4" fill="currentColor" stroke="none" />`,
  pending: html`<circle cx="8" cy="8" r="5" /><path d="M8 5v3l2 1.4" />`,
  running: html`<circle cx="8" cy="8" r="5" opacity=".3" /><path class="spin" d="M8 3a5 5 0 0 1 5 5" />`,
  succeeded: html`<circle cx="8" cy="8" r="5.75" fill="currentColor" stroke="none" /><path class="cutout" d="m5.4 8.2 1.8 1.8 3.4-3.8" />`,
  failed: html`<path d="M8 1.8 14.2 8 8 14.2 1.8 8z" fill="currentColor" stroke="none" /><path class="cutout" d="M8 5v3.4M8 10.7v.1" />`,
  stopped: html`<rect x="3.5" y="3.5" width="9" height="9" rx="1.5" fill="currentColor" stroke="none" opacity=".85" />`,
};

const SHAPES = {
  overview: html`<rect x="2.5" y="2.5" width="4.5" height="4.5" rx="1" /><rect x="9" y="2.5" width="4.5" height="4.5" rx="1" /><rect x="2.5" y="9" width="4.5" height="4.5" rx="1" /><rect x="9" y="9" width="4.5" height="4.5" rx="1" />`,
  works: html`<path d="M3 3v8.5h3M3 6h3" /><rect x="7" y="4" width="6.5" height="4" rx="1" /><rect x="7" y="9.5" width="6.5" height="4" rx="1" />`,
  logs: html`<path d="M3 4h10M3 7h7M3 10h9M3 13h5" />`,
  state: html`<path d="M6 2.5c-2 0-1.5 2-1.5 3.2S3 8 3 8s1.5 0 1.5 2.3-.5 3.2 1.5 3.2M10 2.5c2 0 1.5 2 1.5 3.2S13 8 13 8s-1.5 0-1.5 2.3.5 3.2-1.5 3.2" />`,
  timeline: html`<path d="M2.5 4h6M5.5 8h7M4 12h4" stroke-width="2.2" />`,
  schedules: html`<circle cx="8" cy="8" r="5.5" /><path d="M8 4.8V8l2.2 1.5" />`,
  runtimes: html`<rect x="2.5" y="3" width="11" height="4" rx="1" /><rect x="2.5" y="9" width="11" height="4" rx="1" /><path d="M5 5h.1M5 11h.1" />`,
  app: html`<rect x="2" y="3" width="12" height="10" rx="1.5" /><path d="M2 6h12M5 3v3" />`,
  search: html`<circle cx="7" cy="7" r="4" /><path d="m10 10 3.5 3.5" />`,
  chevron: html`<path d="m6 4 4 4-4 4" />`,
  close: html`<path d="m4 4 8 8M12 4l-8 8" />`,
  stop: html`<rect x="4" y="4" width="8" height="8" rx="1" fill="currentColor" />`,
  play: html`<path d="M5 3.5v9l7-4.5z" fill="currentColor" />`,
  call: html`<path d="M3 8h9M8.5 4.5 12 8l-3.5 3.5" />`,
  retry: html`<path d="M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3" />`,
  edit: html`<path d="M3 13l.6-2.8 7-7 2.2 2.2-7 7z" />`,
  chart: html`<path d="M2.5 13.5h11M3 11l3-4 2.5 2L13 3.5" />`,
  copy: html`<rect x="5.5" y="5.5" width="8" height="8" rx="1.5" /><path d="M10.5 3.5v-1h-8v8h1" />`,
  download: html`<path d="M8 2.5v7M5 7l3 3 3-3M3 13h10" />`,
  stack: html`<path d="m8 2.5 5.5 2.75L8 8 2.5 5.25zM2.5 8 8 10.75 13.5 8M2.5 10.75 8 13.5l5.5-2.75" />`,
  sun: html`<circle cx="8" cy="8" r="2.8" /><path d="M8 1.5v1.5M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1" />`,
  moon: html`<path d="M13 9.5A5.5 5.5 0 1 1 6.5 3a4.5 4.5 0 0 0 6.5 6.5z" />`,
  system: html`<rect x="2" y="3" width="12" height="8" rx="1" /><path d="M6 13.5h4" />`,
  external: html`<path d="M9 3h4v4M13 3 7.5 8.5M11 9.5v3.5H3V5h3.5" />`,
  flow: html`<circle cx="4" cy="8" r="1.8" /><circle cx="12" cy="4" r="1.8" /><circle cx="12" cy="12" r="1.8" /><path d="M5.6 7.2 10.4 4.8M5.6 8.8l4.8 2.4" />`,
  group: html`<path d="M2.5 4.5V12a1 1 0 0 0 1 1h9a1 1 0 0 0 1-1V6a1 1 0 0 0-1-1H8L6.5 3.5h-3a1 1 0 0 0-1 1z" />`,
  plus: html`<path d="M8 3.5v9M3.5 8h9" />`,
  minus: html`<path d="M3.5 8h9" />`,
  end: html`<path d="M8 3v7M5 7.5 8 10.5l3-3M3.5 13h9" />`,
  help: html`<circle cx="8" cy="8" r="5.75" /><path d="M6.4 6.4a1.65 1.65 0 1 1 2.3 1.6c-.5.25-.7.55-.7 1.1M8 11.2v.1" />`,
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">${SHAPES[name]}</svg>`;
}

export function StageIcon({ stage }) {
  return html`<svg class=${`icon stage-icon stage-${stage}`} viewBox="0 0 16 16" aria-hidden="true">${STAGES[stage] ?? STAGES.not_started}</svg>`;
}
