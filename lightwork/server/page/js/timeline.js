// The timeline: when calls waited and ran. Each work has a row on a canvas. Only visible rows are drawn.

import { get, serverTime } from "./api.js";
import { clock, duration, moment } from "./format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { layOut, stepFor } from "./lanes.js";
import { go } from "./route.js";
import { isDark, utc } from "./settings.js";
import { isOver, STAGES, stageName } from "./stages.js";
import { app, calls as callsVersion, model } from "./store.js";
import { StageIcon } from "./icons.js";
import { Button, Empty, Problem } from "./ui.js";

const ROW = 22;
const AXIS = 26;
const LABELS = 220;
const LABELS_NARROW = 110;
const SPANS = [["all", "All"], ["3600", "1 h"], ["600", "10 min"], ["60", "1 min"], ["10", "10 s"]];

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function colors() {
  const found = { text: color("--text"), faint: color("--text-faint"), border: color("--border"), back: color("--surface"), hover: color("--hover"), font: color("--font") };
  for (const stage of STAGES) found[stage] = color(`--stage-${stage}`);
  return found;
}

class Painter {
  constructor(canvas, scroller) {
    this.canvas = canvas;
    this.scroller = scroller;
    this.context = canvas.getContext("2d");
    this.rows = [];
    this.colors = colors();
    this.span = null; // seconds that are shown; null means all
    this.end = null; // time at the right edge; null means now
    this.hover = null;
    this.chosen = null;
  }

  /** Return the times at the left and the right edge. */
  range(now) {
    const first = this.first ?? now - 1;
    const end = this.end ?? now;
    const span = this.span ?? Math.max(0.2, (now - first) * 1.02);
    return [end - span, end];
  }

  get labels() {
    return this.width < 640 ? LABELS_NARROW : LABELS;
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    this.width = this.scroller.clientWidth;
    this.height = this.scroller.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  x(time, [from, to]) {
    return this.labels + ((time - from) / (to - from)) * (this.width - this.labels);
  }

  time(x, [from, to]) {
    return from + ((x - this.labels) / (this.width - this.labels)) * (to - from);
  }

  paint(now) {
    const { context, width, height, colors: c } = this;
    const range = this.range(now);
    context.clearRect(0, 0, width, height);
    context.font = `12px ${c.font}`;
    context.textBaseline = "middle";
    this.paintAxis(range);
    const top = this.scroller.scrollTop;
    const first = Math.floor(top / ROW);
    const last = Math.min(this.rows.length, Math.ceil((top + height) / ROW));
    context.save();
    context.beginPath();
    context.rect(0, AXIS, width, height - AXIS);
    context.clip();
    for (let index = first; index < last; index += 1) this.paintRow(index, AXIS + index * ROW - top, range, now);
    context.restore();
  }

  paintAxis(range) {
    const { context, width, height, colors: c } = this;
    const span = range[1] - range[0];
    const step = stepFor(span, Math.max(2, (width - this.labels) / 110));
    const shift = utc.value ? 0 : new Date(range[0] * 1000).getTimezoneOffset() * 60;
    context.fillStyle = c.faint;
    context.strokeStyle = c.border;
    context.lineWidth = 1;
    context.textAlign = "left";
    context.beginPath();
    for (let tick = Math.ceil((range[0] - shift) / step) * step + shift; tick <= range[1]; tick += step) {
      const x = Math.round(this.x(tick, range)) + 0.5;
      if (x < this.labels) continue;
      context.moveTo(x, AXIS - 6);
      context.lineTo(x, height);
      if (x < width - 40) context.fillText(clock(tick, step < 1), x + 4, AXIS / 2);
    }
    context.moveTo(0, AXIS - 0.5);
    context.lineTo(width, AXIS - 0.5);
    context.stroke();
  }

  paintRow(index, y, range, now) {
    const { context, width, colors: c } = this;
    const row = this.rows[index];
    if (this.hover?.row === index) {
      context.fillStyle = c.hover;
      context.fillRect(0, y, width, ROW);
    }
    context.save();
    context.beginPath();
    context.rect(this.labels, y, width - this.labels, ROW);
    context.clip();
    for (const call of row.bars) this.paintBar(call, y, range, now);
    context.restore();
    if (row.lane > 0) return;
    context.fillStyle = c.text;
    context.textAlign = "left";
    context.fillText(fitted(context, row.work, this.labels - 20), 12, y + ROW / 2);
  }

  paintBar(call, y, range, now) {
    const { context, colors: c } = this;
    const submitted = this.x(call.submitted_at, range);
    const started = this.x(call.started_at ?? call.ended_at ?? now, range);
    const ended = this.x(call.ended_at ?? now, range);
    if (ended < this.labels || submitted > this.width) return;
    if (started - submitted > 1) {
      context.fillStyle = c.pending;
      context.globalAlpha = 0.55;
      context.fillRect(submitted, y + ROW / 2 - 1, started - submitted, 2);
      context.globalAlpha = 1;
    }
    if (call.started_at == null && !call.ended_at) return;
    const length = Math.max(2, ended - started);
    context.fillStyle = c[call.stage] ?? c.stopped;
    context.beginPath();
    context.roundRect(started, y + 4, length, ROW - 8, Math.min(3, length / 2));
    context.fill();
    if (call.stage === "failed" && length >= 8) {
      // A failed call also has a distinct shape, in addition to its colour: a notch in the background colour.
      context.fillStyle = c.back;
      context.fillRect(started + length - 4, y + 4, 1.5, ROW - 8);
    }
    if (call === this.hover?.call || call.id === this.chosen) {
      context.strokeStyle = c.text;
      context.lineWidth = 1.5;
      context.strokeRect(started - 1, y + 3, length + 2, ROW - 6);
    }
  }

  /** Return the row and the bar at a point. */
  at(x, y, now) {
    const index = Math.floor((y - AXIS + this.scroller.scrollTop) / ROW);
    const row = y > AXIS ? this.rows[index] : undefined;
    if (!row) return null;
    const range = this.range(now);
    for (let at = row.bars.length - 1; at >= 0; at -= 1) {
      const call = row.bars[at];
      const from = this.x(call.submitted_at, range) - 2;
      const to = Math.max(this.x(call.ended_at ?? now, range), from + 4) + 2;
      if (x >= this.labels && x >= from && x <= to) return { row: index, work: row.work, call };
    }
    return { row: index, work: row.work, call: null };
  }

  zoom(factor, x, now) {
    const range = this.range(now);
    const at = x === null ? range[1] : this.time(x, range);
    const span = Math.min(86400 * 30, Math.max(0.005, (range[1] - range[0]) * factor));
    const share = (range[1] - at) / (range[1] - range[0]);
    const end = at + share * span;
    this.span = span;
    this.end = x === null && this.end === null ? null : end >= now ? null : end;
  }

  pan(seconds, now) {
    const range = this.range(now);
    this.span = range[1] - range[0];
    const end = range[1] + seconds;
    this.end = end >= now ? null : end;
  }
}

function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let from = 1;
  while (from < text.length && context.measureText(`…${text.slice(from)}`).width > width) from += 1;
  return `…${text.slice(from)}`;
}

function Tip({ tip }) {
  if (!tip?.call) return null;
  const { call } = tip;
  const end = call.ended_at ?? serverTime();
  return html`<div class="tip" style=${{ transform: `translate(${tip.x}px, ${tip.y}px)` }} role="status">
    <div class="tip-head"><${StageIcon} stage=${call.stage} /><strong>call ${call.id}</strong> ${stageName(call.stage)}${call.reason ? `, ${call.reason}` : ""}</div>
    <div class="faint">${call.work}</div>
    <div class="num">${moment(call.submitted_at)}</div>
    <div class="num">waited ${duration((call.started_at ?? end) - call.submitted_at)}${call.started_at ? `, ran ${duration(end - call.started_at)}` : ""}</div>
  </div>`;
}

export function TimelineView() {
  const scroller = useRef();
  const canvas = useRef();
  const painter = useRef(null);
  const [tip, setTip] = useState(null);
  const [span, setSpan] = useState("all");
  const [older, setOlder] = useState({ items: [], error: null });
  const version = callsVersion.value;
  const run = app.value?.run;
  const dark = isDark.value;
  const inUtc = utc.value;

  useEffect(() => {
    let isOld = false;
    get(["timeline"], { limit: 1000 }).then(
      (found) => !isOld && setOlder({ items: found.items.map((one) => ({ ...one, id: one.call })), error: null }),
      (error) => !isOld && setOlder({ items: [], error }),
    );
    return () => {
      isOld = true;
    };
  }, [run]);

  const rows = useMemo(() => {
    const all = new Map(older.items.map((one) => [one.id, one]));
    for (const one of model.calls.values()) all.set(one.id, one);
    return layOut(all.values());
  }, [version, older]);
  const isMoving = rows.some((row) => row.bars.some((call) => !isOver(call.stage)));
  const now = () => (isMoving || !rows.length ? serverTime() : Math.max(...rows.flatMap((row) => row.bars.map((call) => call.ended_at ?? 0))));
  const paint = () => painter.current?.paint(now());

  useLayoutEffect(() => {
    painter.current = new Painter(canvas.current, scroller.current);
    const observer = new ResizeObserver(() => {
      painter.current.resize();
      paint();
    });
    observer.observe(scroller.current);
    painter.current.resize();
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    const one = painter.current;
    one.rows = rows;
    one.first = rows.length ? Math.min(...rows.map((row) => row.bars[0].submitted_at)) : null;
    one.colors = colors();
    paint();
    if (!isMoving) return undefined;
    // While a call runs, the right edge moves. A few updates a second are enough for the eye.
    const timer = setInterval(() => requestAnimationFrame(paint), 200);
    return () => clearInterval(timer);
  }, [rows, dark, inUtc, isMoving]);

  const choose = (value) => {
    setSpan(value);
    painter.current.span = value === "all" ? null : Number(value);
    painter.current.end = null;
    paint();
  };
  const zoom = (factor, x = null) => {
    painter.current.zoom(factor, x, now());
    setSpan("");
    paint();
  };
  const pan = (share) => {
    const range = painter.current.range(now());
    painter.current.pan((range[1] - range[0]) * share, now());
    setSpan("");
    paint();
  };
  const point = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const drag = useRef(null);
  const moved = (event) => {
    const [x, y] = point(event);
    if (drag.current) {
      const one = painter.current;
      const range = one.range(now());
      one.pan(((drag.current.x - x) / (one.width - one.labels)) * (range[1] - range[0]), now());
      drag.current.isMoved ||= Math.abs(drag.current.x - x) > 2;
      drag.current.x = x;
      setSpan("");
      paint();
      return;
    }
    const found = painter.current.at(x, y, now());
    painter.current.hover = found;
    setTip(found?.call ? { call: found.call, x: Math.max(0, Math.min(x + 12, painter.current.width - 250)), y: y > painter.current.height - 110 ? y - 100 : y + 14 } : null);
    paint();
  };
  const left = () => {
    painter.current.hover = null;
    setTip(null);
    paint();
  };
  const clicked = (event) => {
    const wasDrag = drag.current?.isMoved;
    drag.current = null;
    if (wasDrag) return;
    const found = painter.current.at(...point(event), now());
    if (found) go(found.call ? ["works", found.work, "calls", String(found.call.id)] : ["works", found.work]);
  };
  const wheel = (event) => {
    if (!event.ctrlKey && !event.metaKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(event.deltaY / 300), point(event)[0]);
    else pan(event.deltaX / 1000);
  };
  useEffect(() => {
    const element = scroller.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  });
  const chooseCall = (step) => {
    const one = painter.current;
    const flat = rows.flatMap((row, index) => row.bars.map((call) => ({ row: index, call })));
    if (!flat.length) return;
    const at = flat.findIndex(({ call }) => call.id === one.chosen);
    const next = flat[Math.min(flat.length - 1, Math.max(0, at + step))];
    one.chosen = next.call.id;
    const y = next.row * ROW;
    const element = scroller.current;
    if (y < element.scrollTop) element.scrollTop = y;
    else if (y + ROW > element.scrollTop + element.clientHeight - AXIS) element.scrollTop = y + ROW - element.clientHeight + AXIS;
    setTip({ call: next.call, x: one.labels + 12, y: Math.min(AXIS + y - element.scrollTop + ROW, one.height - 100) });
    paint();
  };
  const key = (event) => {
    const act = {
      "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1.4), 0: () => choose("all"),
      ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), ArrowDown: () => chooseCall(1), ArrowUp: () => chooseCall(-1),
      Enter: () => {
        const found = rows.flatMap((row) => row.bars).find((call) => call.id === painter.current.chosen);
        if (found) go(["works", found.work, "calls", String(found.id)]);
      },
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  };

  return html`<section class="view timeline-view">
    <div class="bar">
      <div class="segmented" role="group" aria-label="Span">${SPANS.map(([value, label]) => html`<button key=${value} type="button" aria-pressed=${span === value} onClick=${() => choose(value)}>${label}</button>`)}</div>
      <${Button} icon="minus" label="Zoom out" iconOnly run=${() => zoom(1.6)} /><${Button} icon="plus" label="Zoom in" iconOnly run=${() => zoom(0.625)} />
      <span class="spacer"></span>
      <span class="legend">${["pending", "running", "succeeded", "failed", "stopped"].map((stage) => html`<span key=${stage} class=${`stage-${stage}`}><i class=${`swatch swatch-${stage}`}></i>${stage === "pending" ? "waiting" : stageName(stage)}</span>`)}</span>
    </div>
    ${older.error && html`<${Problem} error=${older.error} />`}
    <div class="timeline-box">
      <div class="timeline" ref=${scroller} tabIndex=${0} role="application" aria-label="Timeline of calls: up and down choose a call, Enter opens it, left and right move in time, plus and minus zoom"
        onScroll=${paint} onKeyDown=${key} onPointerDown=${(event) => { drag.current = { x: point(event)[0], isMoved: false }; }} onPointerMove=${moved} onPointerUp=${clicked} onPointerLeave=${() => { drag.current = null; left(); }}>
        <canvas ref=${canvas}></canvas>
        <div class="timeline-space" style=${{ height: `${rows.length * ROW + AXIS}px` }}></div>
      </div>
      <${Tip} tip=${tip} />
      ${rows.length === 0 && html`<div class="over"><${Empty} icon="timeline" title="No calls yet">Each call appears here as a bar, from the time it is queued until it ends.<//></div>`}
    </div>
  </section>`;
}
