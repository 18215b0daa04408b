// Charts: numeric attributes over time, lists of numbers over their index, CPU and memory. uPlot draws them.
// It is loaded when the first chart is shown.

import { serverTime } from "./api.js";
import { bytes, clock } from "./format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { isDark, utc } from "./settings.js";
import { freshUsage, model, stateOf, usage, wantUsage } from "./store.js";
import { useFresh } from "./stale.js";
import { Empty, Section } from "./ui.js";
import { asNumber } from "./values.js";

const MAX_CHARTS = 12;
const MAX_POINTS = 4000;
const SHORTEST = 10; // minimum span of a time axis in seconds
const EVERY = 100; // minimum milliseconds between two drawings: a chart need not be redrawn at each change

let uplot;

function loadUPlot(attempt = 0) {
  // A browser does not retry a module that failed to load, so each attempt uses another address.
  uplot ??= import(attempt ? `../vendor/uplot.js?${attempt}` : "../vendor/uplot.js").then((module) => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = new URL("../vendor/uplot.css", import.meta.url).href;
    document.head.append(sheet);
    return module.default;
  });
  return uplot.catch((error) => {
    uplot = undefined;
    if (attempt >= 5) throw error;
    return new Promise((go) => setTimeout(go, 300)).then(() => loadUPlot(attempt + 1));
  });
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function short(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(5)));
}

function options({ isTime, unit, stroke, size, name, isFromZero, paths }) {
  const label = unit === "bytes" ? (value) => (value == null ? "–" : bytes(Math.round(value))) : short;
  const axis = { stroke: color("--text-faint"), font: `11px ${color("--font")}`, grid: { stroke: color("--border"), width: 1 }, ticks: { show: false } };
  return {
    ...size,
    padding: [8, 8, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { show: false },
    scales: {
      x: { time: false, range: (_plot, low, high) => [isTime && high - low < SHORTEST ? high - SHORTEST : low, high] },
      y: { range: (_plot, low, high) => (isFromZero ? [0, (high || 1) * 1.1] : padded(low, high)) },
    },
    axes: [
      { ...axis, size: 24, gap: 4, space: 90, values: (_plot, ticks) => ticks.map((tick) => (isTime ? clock(tick) : short(tick))) },
      { ...axis, size: 56, gap: 4, space: 28, values: (_plot, ticks) => ticks.map(label) },
    ],
    series: [{}, { label: name, stroke, width: 1.5, fill: `color-mix(in srgb, ${stroke} 10%, transparent)`, paths, points: { show: undefined }, spanGaps: false }],
  };
}

function padded(low, high) {
  if (low == null || !Number.isFinite(low)) return [0, 1];
  if (low === high) return [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  return [low - (high - low) * 0.06, high + (high - low) * 0.06];
}

/** Replace numbers that a chart cannot show by null, which leaves a gap. */
const drawable = (values) => values.map((value) => (value !== null && Number.isFinite(value) ? value : null));

/** Convert a series to the form that uPlot takes. The last value is extended until now. */
function untilNow(series) {
  if (!series) return [[], []];
  const end = Math.max(serverTime(), series.times[series.times.length - 1] + 0.001);
  return [[...series.times, end], drawable([...series.values, series.values[series.values.length - 1]])];
}

function thinned(values) {
  const step = Math.ceil(values.length / MAX_POINTS);
  const xs = [];
  const ys = [];
  for (let index = 0; index < values.length; index += step) {
    xs.push(index);
    ys.push(asNumber(values[index]));
  }
  return [xs, drawable(ys)];
}

/**
 * One chart.
 *
 * @param {() => [number[], (number|null)[]]} props.data Returns the points; called for each drawing.
 * @param {number} props.version The chart is redrawn when this changes.
 */
export function Chart({ name, data, version, isTime = true, isFromZero = false, unit, latest, tone = "--accent" }) {
  const box = useRef();
  const plot = useRef(null);
  const drawn = useRef(0);
  const [at, setAt] = useState(null);
  const isDarkNow = isDark.value;
  const isUtc = utc.value;

  useLayoutEffect(() => {
    let isGone = false;
    const element = box.current;
    loadUPlot().then((UPlot) => {
      if (isGone) return;
      const size = { width: element.clientWidth, height: element.clientHeight };
      // A value holds until it is set again, so the line has a step between two points in time.
      const paths = isTime && !isFromZero ? UPlot.paths.stepped({ align: 1 }) : undefined;
      const given = options({ isTime, isFromZero, paths, unit, stroke: color(tone), size, name });
      given.hooks = { setCursor: [(one) => setAt(one.cursor.idx ?? null)] };
      plot.current = new UPlot(given, data(), element);
    });
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: element.clientHeight }));
    observer.observe(element);
    return () => {
      isGone = true;
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [isDarkNow, isUtc, isTime]);

  useEffect(() => {
    const wait = Math.max(0, drawn.current + EVERY - performance.now());
    const timer = setTimeout(() => {
      drawn.current = performance.now();
      plot.current?.setData(data());
    }, wait);
    // A waiting timer is not cleared by the next change: otherwise a chart would never be drawn while numbers stream.
    return wait === 0 ? () => clearTimeout(timer) : undefined;
  }, [version]);

  const shown = at !== null && plot.current ? [plot.current.data[0][at], plot.current.data[1][at]] : null;
  const label = unit === "bytes" ? (value) => (value == null ? "–" : bytes(Math.round(value))) : short;
  return html`<figure class="chart">
    <figcaption><span class="ellipsis">${name}</span><span class="num">${shown ? html`<span class="faint">${isTime ? clock(shown[0]) : short(shown[0])}</span> ${label(shown[1])}` : latest}</span></figcaption>
    <div class="plot" ref=${box} role="img" aria-label=${`${name}: ${latest}`}></div>
  </figure>`;
}

/** The chart of a numeric attribute of a component. */
export function AttributeChart({ component, attribute, isList, title }) {
  const version = stateOf(component).value;
  const value = model.valueAt(component, [attribute]);
  const data = () => {
    if (isList) return thinned(model.valueAt(component, [attribute]) ?? []);
    return untilNow(model.history.get(component, attribute));
  };
  const latest = isList ? `${value?.length ?? 0} numbers, last ${short(asNumber(value?.at(-1)))}` : short(asNumber(value));
  return html`<${Chart} name=${title ?? attribute} isTime=${!isList} data=${data} version=${version} latest=${latest} />`;
}

/** Charts of all attributes of a component that a chart can show. */
export function NumericCharts({ component }) {
  useFresh(component);
  stateOf(component).value;
  // A number that has not changed since the page was opened has no chart yet.
  const found = model.numeric(component).filter((one) => one.isList || model.history.get(component, one.attribute)?.times.length > 1);
  if (found.length === 0) return null;
  return html`<${Section} title="Numbers in the state" aside=${html`<span class="faint">since this page was opened; lists in full</span>`}>
    <div class="charts">${found.slice(0, MAX_CHARTS).map((one) => html`<${AttributeChart} key=${`${one.attribute} ${one.isList}`} component=${component} ...${one} />`)}</div>
    ${found.length > MAX_CHARTS && html`<p class="faint">${found.length - MAX_CHARTS} more: see the state.</p>`}
  <//>`;
}

/** Charts of the CPU and memory of a work. */
export function UsageCharts({ name }) {
  useEffect(wantUsage, []);
  const version = usage.value;
  const found = freshUsage(name) ?? model.usage.get(name);
  if (!found) return html`<${Empty} icon="chart" title="No samples yet">Usage is sampled every few seconds, but only while the work has a process and this page is open.<//>`;
  const of = (key) => () => {
    const series = model.usageHistory.get(name, key);
    return series ? [series.times.slice(), drawable(series.values)] : [[], []];
  };
  return html`<div class="stack"><div class="charts wide">
    <${Chart} isFromZero name="CPU, % of one core" data=${of("cpu")} version=${version} latest=${`${found.cpu.toFixed(1)} %`} />
    <${Chart} isFromZero name="Memory" unit="bytes" tone="--tone-memory" data=${of("memory")} version=${version} latest=${bytes(found.memory)} />
  </div><p class="faint num">${found.processes} ${found.processes === 1 ? "process" : "processes"}, sampled at ${clock(found.time)}</p></div>`;
}
