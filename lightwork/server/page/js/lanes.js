// Where the bars of a timeline stand. Pure.

/**
 * Calls by work, each in a lane of its own while it overlaps with others.
 *
 * @returns {{work: string, lane: number, bars: object[]}[]} Works in order of their first call; a work has as many rows
 *   as calls that overlapped, up to `maxLanes`.
 */
export function layOut(calls, maxLanes = 6) {
  const works = new Map();
  const sorted = [...calls].filter((one) => one.submitted_at != null).sort((a, b) => a.submitted_at - b.submitted_at || a.id - b.id);
  for (const call of sorted) {
    let lanes = works.get(call.work);
    if (!lanes) works.set(call.work, (lanes = []));
    const end = call.ended_at ?? Infinity;
    // Waiting is drawn as a thin line: what must not overlap are the times from the start on.
    const start = call.started_at ?? call.submitted_at;
    let lane = lanes.find((one) => one.end <= start);
    if (!lane && lanes.length < maxLanes) lanes.push((lane = { end: -Infinity, bars: [] }));
    lane ??= lanes[lanes.length - 1];
    lane.end = Math.max(lane.end, end);
    lane.bars.push(call);
  }
  const rows = [];
  for (const [work, lanes] of works) lanes.forEach((lane, index) => rows.push({ work, lane: index, bars: lane.bars }));
  return rows;
}

/** Round steps in seconds such that about `count` of them fit in a span. */
export function stepFor(span, count) {
  const steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  return steps.find((step) => span / step <= count) ?? 86400 * Math.ceil(span / count / 86400);
}
