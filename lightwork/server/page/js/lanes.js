// The layout of a timeline's bars. Pure functions.

/**
 * Group calls by work, and put calls that overlap into separate lanes.
 *
 * @returns {{work: string, lane: number, bars: object[]}[]} Works in order of their first call. A work has as many
 *   lanes as overlapping calls, up to `maxLanes`.
 */
export function layOut(calls, maxLanes = 6) {
  const works = new Map();
  const sorted = [...calls].filter((one) => one.submitted_at != null).sort((a, b) => a.submitted_at - b.submitted_at || a.id - b.id);
  for (const call of sorted) {
    let lanes = works.get(call.work);
    if (!lanes) works.set(call.work, (lanes = []));
    const end = call.ended_at ?? Infinity;
    // The waiting time is a thin line and may overlap. The running time must not overlap.
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

/** Return a round step in seconds of which about `count` fit in a span. */
export function stepFor(span, count) {
  const steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  return steps.find((step) => span / step <= count) ?? 86400 * Math.ceil(span / count / 86400);
}
