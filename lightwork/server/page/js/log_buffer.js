// Log lines in the order of their numbers, with the gaps that are known. Pure.

const LIMIT = 100_000;

/** A line is {seq, work, time, text}; a gap {gap: true, after, before}, standing where its lines are missing. */
export class LogBuffer {
  constructor(limit = LIMIT) {
    this.limit = limit;
    this.rows = [];
    this.hasOlder = true; // there are, or may be, lines before the first
    this.dropped = 0;
  }

  get first() {
    return this.rows.find((row) => !row.gap)?.seq ?? null;
  }

  get last() {
    for (let index = this.rows.length - 1; index >= 0; index -= 1) if (!this.rows[index].gap) return this.rows[index].seq;
    return null;
  }

  /** Take lines in wherever their numbers put them; those that are here already are left out. Gives how many were new. */
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
    // A tenth more than needed, so that this is not done for each line.
    const cut = Math.min(this.rows.length, excess + Math.floor(this.limit / 10));
    this.rows = this.rows.slice(cut);
    this.dropped += cut;
    this.hasOlder = true;
  }

  /** Lines with numbers between these two, both excluded, were not sent. */
  addGap(after, before) {
    this.rows.push({ gap: true, after, before });
    this.rows.sort((a, b) => place(a) - place(b));
  }

  /** Put the lines that were fetched into a gap. `more`: there are others between the last of them and its end. */
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
