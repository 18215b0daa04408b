// Log lines of one work, of several or of all. The view follows new lines, searches, and fetches missing lines.

import { addressOf, get } from "./api.js";
import { ansiParts } from "./ansi.js";
import { clock, count, moment } from "./format.js";
import { classes, html, signal, useEffect, useMemo, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { VirtualList } from "./list.js";
import { LogBuffer } from "./log_buffer.js";
import { link, route, setQuery } from "./route.js";
import { logTimes, utc } from "./settings.js";
import { model, tree, wantLogs } from "./store.js";
import { ask, Button, Empty, failed, Problem } from "./ui.js";

const ROW = 18;
const PAGE = 1000;
const LONGEST = 4000;

/** The lines of some works that match a text, from the feed and from requests to the server. */
class LogSession {
  constructor(works, search) {
    this.works = works;
    this.search = search;
    this.buffer = new LogBuffer();
    this.version = signal(0);
    this.problem = signal(null);
    this.isLoading = false;
    this.needsFill = false;
    this.planned = false;
    this.release = null;
  }

  open() {
    // Follow the feed before loading earlier lines: every line is then in at least one of the two.
    this.release = wantLogs(this);
    this.load({ tail: PAGE });
  }

  close() {
    this.release?.();
    this.release = null;
  }

  changed() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.version.value += 1;
    });
  }

  wants(line) {
    if (this.works.length && !this.works.includes(line.work)) return false;
    return !this.search || line.text.toLowerCase().includes(this.search.toLowerCase());
  }

  /** Called with lines and gaps from the feed. */
  lines(items) {
    const fresh = [];
    for (const item of items) {
      if (item.t === "log_gap") {
        this.buffer.add(fresh.splice(0));
        if (item.before > item.after + 1) this.buffer.addGap(item.after, item.before);
      } else if (this.wants(item)) fresh.push(item);
    }
    if (this.needsFill && fresh.length) {
      // Lines may have been written between the last loaded line and the first line of the feed.
      this.needsFill = false;
      const last = this.buffer.last;
      if (last !== null) this.catchUp(last);
    }
    this.buffer.add(fresh);
    this.changed();
  }

  /** Called after each new connection. Fetches the lines that were written meanwhile. */
  reconnected(kind) {
    if (kind === "new run") {
      this.buffer = new LogBuffer();
      this.load({ tail: PAGE });
    } else if (this.buffer.last !== null) this.catchUp(this.buffer.last);
  }

  query(more) {
    return { work: this.works, search: this.search, ...more };
  }

  async load(more) {
    if (this.isLoading) return;
    this.isLoading = true;
    this.changed();
    try {
      const page = await get(["logs"], this.query(more));
      this.buffer.add(page.items);
      if (more.tail || more.before) this.buffer.hasOlder = page.more;
      if (more.tail) this.needsFill = true;
      this.problem.value = null;
    } catch (error) {
      this.problem.value = error;
    } finally {
      this.isLoading = false;
      this.changed();
    }
  }

  older() {
    const { first, hasOlder, rows, limit } = this.buffer;
    if (hasOlder && first !== null && rows.length < limit) return this.load({ before: first, limit: PAGE, tail: PAGE });
    return undefined;
  }

  async catchUp(after) {
    try {
      const page = await get(["logs"], this.query({ after, limit: PAGE }));
      this.buffer.add(page.items);
      if (page.more && page.items.length) {
        const last = page.items[page.items.length - 1].seq;
        const next = this.buffer.rows.find((row) => !row.gap && row.seq > last);
        if (next) this.buffer.addGap(last, next.seq);
        else await this.catchUp(last);
      }
    } catch (error) {
      this.problem.value = error;
    }
    this.changed();
  }

  async fill(gap) {
    if (gap.isLoading) return;
    gap.isLoading = true;
    try {
      const page = await get(["logs"], this.query({ after: gap.after, limit: PAGE }));
      this.buffer.fill(gap, page.items, page.more);
    } catch (error) {
      gap.isLoading = false;
      failed(error);
    }
    this.changed();
  }
}

// --- rows ------------------------------------------------------------------------------------------

function highlighted(text, search) {
  if (!search) return text;
  const parts = [];
  const lower = text.toLowerCase();
  const wanted = search.toLowerCase();
  let end = 0;
  for (let at = lower.indexOf(wanted); at >= 0 && parts.length < 400; at = lower.indexOf(wanted, end)) {
    parts.push(text.slice(end, at), html`<mark>${text.slice(at, at + wanted.length)}</mark>`);
    end = at + wanted.length;
  }
  parts.push(text.slice(end));
  return parts;
}

function hue(name) {
  let sum = 0;
  for (let index = 0; index < name.length; index += 1) sum = (sum * 31 + name.charCodeAt(index)) >>> 0;
  return sum % 8;
}

const showLine = (line) => ask({ title: `${line.work}, ${moment(line.time)}`, body: html`<pre class="block tall wrap">${line.text}</pre>` });

function Line({ line, search, withWork, withTime }) {
  const isLong = line.text.length > LONGEST;
  const parts = ansiParts(isLong ? line.text.slice(0, LONGEST) : line.text);
  return html`<div class="log-line">
    ${withTime && html`<time class="log-time num" title=${moment(line.time)}>${clock(line.time, true)}</time>`}
    ${withWork && html`<a class=${`log-work hue-${hue(line.work)}`} tabIndex=${-1} href=${link(["works", line.work, "logs"])} title=${line.work}>${line.work.replace(/^root\./, "")}</a>`}
    <span class="log-text">${parts.map((part) => (part.className ? html`<span class=${part.className}>${highlighted(part.text, search)}</span>` : highlighted(part.text, search)))}${
      isLong && html`<button type="button" class="link" tabIndex=${-1} onClick=${() => showLine(line)}>… ${count(line.text.length - LONGEST)} more characters</button>`
    }</span>
  </div>`;
}

function Gap({ gap, session }) {
  useEffect(() => {
    session.fill(gap);
  }, [gap]);
  return html`<div class="log-gap">loading lines that arrived too fast for this page …</div>`;
}

/** `lead` is an element that is placed before the search box. */
export function LogView({ works, lead }) {
  const [text, setText] = useState(route.value.query.get("search") ?? "");
  const [search, setSearch] = useState(text);
  const [isFollowing, setFollowing] = useState(true);
  const key = works.join("\n");
  const session = useMemo(() => new LogSession(works, search), [key, search]);
  const seen = useRef(null);
  const box = useMemo(() => ({ current: null }), []);
  utc.value; // redraws the times when the time zone changes

  useEffect(() => {
    session.open();
    return () => session.close();
  }, [session]);
  useEffect(() => {
    const timer = setTimeout(() => {
      setSearch(text);
      setQuery({ search: text || undefined });
    }, 200);
    return () => clearTimeout(timer);
  }, [text]);

  session.version.value;
  const { rows, hasOlder } = session.buffer;
  const withTime = logTimes.value;
  const withWork = works.length !== 1;

  // Older lines that are inserted above must not move the visible lines.
  const firstSeen = useRef(null);
  useEffect(() => {
    const before = firstSeen.current;
    const first = session.buffer.first;
    if (before && before.session === session && first !== null && first < before.seq && !isFollowing) {
      const added = rows.findIndex((row) => row.seq === before.seq);
      if (added > 0) box.current.scrollTop += added * ROW;
    }
    firstSeen.current = first === null ? null : { session, seq: first };
  });

  const place = (isAtEnd, isAtStart) => {
    if (isAtEnd !== isFollowing) setFollowing(isAtEnd);
    if (!isAtEnd) seen.current ??= session.buffer.last;
    else seen.current = null;
    if (isAtStart && !isAtEnd) session.older();
  };
  const unseen = isFollowing || seen.current === null ? 0 : rows.length - 1 - rows.findLastIndex((row) => row.seq <= seen.current);
  const [download] = works;
  return html`<div class="log-view">
    <div class="bar log-bar">
      ${lead}<label class="search"><${Icon} name="search" /><input type="search" data-search placeholder="Search the log" aria-label="Search the log" value=${text} onInput=${(event) => setText(event.target.value)} /></label>
      <label class="check"><input type="checkbox" checked=${withTime} onChange=${(event) => { logTimes.value = event.target.checked; }} /> Time</label>
      <span class="faint num log-count" role="status">${search ? `${count(rows.length)} ${hasOlder && rows.length ? "newest " : ""}lines match` : ""}</span>
      <span class="spacer"></span>
      ${works.length === 1 && html`<a class="button" href=${addressOf(["works", download, "logs", "download"])} download=${`${download}.log`}><${Icon} name="download" /><span>Download</span></a>`}
    </div>
    ${session.problem.value && html`<${Problem} error=${session.problem.value} />`}
    <div class="log-box">
      ${rows.length === 0
        ? html`<${Empty} icon="logs" title=${session.isLoading ? "Loading…" : search ? "No line matches" : "No output yet"}>${!session.isLoading && (search ? "The search ignores case. Try a shorter text." : "Standard output and standard error of works appear here.")}<//>`
        : html`<${VirtualList} className="log-lines" count=${rows.length} rowHeight=${ROW} label="log" role="log" follow=${isFollowing} onPlace=${place} box=${box}
            keyOf=${(index) => (rows[index].gap ? `gap ${rows[index].after}` : rows[index].seq)}
            row=${(index) => rows[index].gap ? html`<${Gap} gap=${rows[index]} session=${session} />` : html`<${Line} line=${rows[index]} search=${search} withWork=${withWork} withTime=${withTime} />`} />`}
      ${!isFollowing && rows.length > 0 && html`<button type="button" class="button primary log-end" onClick=${() => { setFollowing(true); box.current.scrollTop = box.current.scrollHeight; }}><${Icon} name="end" /><span>${unseen > 0 ? html`<span class="num">${count(unseen)}</span> new, follow` : "Follow"}</span></button>`}
    </div>
  </div>`;
}

export function LogsView() {
  tree.value;
  const chosen = route.value.query.get("work") ?? "";
  const names = [...model.works.keys()];
  const lead = html`<select aria-label="Show lines of" value=${chosen} onChange=${(event) => setQuery({ work: event.target.value || undefined })}>
      <option value="">all works, merged</option>${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>`;
  return html`<section class="view logs-view"><${LogView} key=${chosen} works=${chosen ? [chosen] : []} lead=${lead} /></section>`;
}
