// Log lines in the order of their numbers, with the known gaps. It uses no DOM and no network.

const LIMIT = 100_000;

/** A row is a line {seq, work, time, text}, or a gap {gap: true, after, before} in the place of missing lines. */
export class LogBuffer {
  constructor(limit = LIMIT) {
    this.limit = limit;
    this.rows = [];
    this.hasOlder = true; // there may be lines before the first one
    this.dropped = 0;
  }

  get first() {
    return this.rows.find((row) => !row.gap)?.seq ?? null;
  }

  get last() {
    for (let index = this.rows.length - 1; index >= 0; index -= 1) if (!this.rows[index].gap) return this.rows[index].seq;
    return null;
  }

  /** Insert lines in the order of their numbers, without duplicates. Return how many lines were new. */
  add(lines) {
    if (lines.length === 0) return 0;
    const last = this.rows.length ? place(this.rows[this.rows.length - 1]) : -Infinity;
    let added = 0;
    if (lines[0].seq > last && isSorted(lines)) {
      for (const line of lines) this.rows.push(line);
      added = lines.length;
    } else {
      added = this.merge(lines);
    }
    this.trim();
    return added;
  }

  merge(lines) {
    const known = new Set();
    for (const row of this.rows) if (!row.gap) known.add(row.seq);
    const fresh = [];
    for (const line of lines) {
      if (known.has(line.seq)) continue;
      known.add(line.seq);
      fresh.push(line);
    }
    if (fresh.length) {
      this.rows = [...this.rows, ...fresh].sort((a, b) => place(a) - place(b));
    }
    return fresh.length;
  }

  trim() {
    const excess = this.rows.length - this.limit;
    if (excess <= 0) return;
    // Remove a tenth more than needed, so that not every line causes a trim.
    const cut = Math.min(this.rows.length, excess + Math.floor(this.limit / 10));
    this.rows = this.rows.slice(cut);
    this.dropped += cut;
    this.hasOlder = true;
  }

  /** Add a gap: lines with numbers between these two, both excluded, were not sent. */
  addGap(after, before) {
    this.rows.push({ gap: true, after, before });
    this.rows.sort((a, b) => place(a) - place(b));
  }

  /** Fill a gap with fetched lines. If there are `more` lines before the end of the gap, a smaller gap remains. */
  fill(gap, lines, more) {
    const inside = lines.filter((line) => line.seq > gap.after && line.seq < gap.before);
    const isOpen = more && inside.length > 0 && inside.length === lines.length;
    this.rows = this.rows.filter((row) => row !== gap);
    this.add(inside);
    if (isOpen) this.addGap(inside[inside.length - 1].seq, gap.before);
  }
}

const place = (row) => (row.gap ? row.after + 0.5 : row.seq);

function isSorted(lines) {
  for (let index = 1; index < lines.length; index += 1) if (lines[index].seq <= lines[index - 1].seq) return false;
  return true;
}
