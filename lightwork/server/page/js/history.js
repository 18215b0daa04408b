// Numbers over time, for the charts. When a series is full, every second point is dropped. A series therefore always
// begins at its first number, and becomes coarser.

const LIMIT = 1200;

class Series {
  constructor() {
    this.times = [];
    this.values = [];
    this.stride = 1;
    this.skipped = 0;
  }

  add(time, value) {
    const last = this.times.length - 1;
    // Within one stride the newest number replaces the previous one, so the end of a curve is always correct.
    if (last > 0 && this.skipped + 1 < this.stride) {
      this.skipped += 1;
      this.times[last] = time;
      this.values[last] = value;
      return;
    }
    this.skipped = 0;
    this.times.push(time);
    this.values.push(value);
    if (this.times.length > LIMIT) this.thin();
  }

  thin() {
    const keep = (_item, index) => index % 2 === 0 || index === this.times.length - 1;
    const times = this.times.filter(keep);
    this.values = this.values.filter(keep);
    this.times = times;
    this.stride *= 2;
  }
}

/** All series, by component and attribute. */
export class History {
  constructor() {
    this.components = new Map();
  }

  add(component, attribute, time, value) {
    let series = this.components.get(component);
    if (!series) this.components.set(component, (series = new Map()));
    let found = series.get(attribute);
    if (!found) series.set(attribute, (found = new Series()));
    found.add(time, value);
  }

  get(component, attribute) {
    return this.components.get(component)?.get(attribute);
  }

  forget(component) {
    this.components.delete(component);
  }
}
