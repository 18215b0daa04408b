// A list of which only the rows that can be seen are in the document. All rows have one height.

import { classes, html, signal, useLayoutEffect, useMemo, useRef } from "./html.js";

const OVERSCAN = 8;

/**
 * @param {object} props
 * @param {number} props.count
 * @param {number} props.rowHeight
 * @param {(index: number) => object} props.row Its element; gets a key from `keyOf`. Signals are read by its components,
 *   not by this: what it has given is kept until whoever holds the list draws it anew.
 * @param {(index: number) => string|number} props.keyOf
 * @param {number} [props.active] The row that is chosen, kept in sight when it changes.
 * @param {(index: number) => void} [props.onMove] The arrow keys ask for another row.
 * @param {(event: KeyboardEvent) => void} [props.onKey] Any other key.
 * @param {boolean} [props.recycles] Whether rows that leave give their elements to those that come: cheaper where a row has
 *   many elements; their order in the document is not that of the rows then.
 * @param {boolean} [props.follow] Whether the end is kept in sight as rows are added.
 * @param {(isAtEnd: boolean, isAtStart: boolean) => void} [props.onPlace] Called as it is scrolled.
 * @param {{current: HTMLElement}} [props.box] Is given the element that scrolls.
 */
export function VirtualList(props) {
  const { count, rowHeight, row, keyOf, active, onMove, onKey, follow = false, recycles = false, onPlace, label, role = "listbox", className } = props;
  const own = useRef();
  const box = props.box ?? own;
  // More rows than can be seen, until it is known how many can.
  const view = useMemo(() => signal({ top: 0, height: innerHeight }), []);
  const lastActive = useRef(active);
  const made = useRef({ props: null, pool: 0, rows: new Map() });

  useLayoutEffect(() => {
    const element = box.current;
    const measure = () => {
      const next = { top: element.scrollTop, height: element.clientHeight };
      const { top, height } = view.peek();
      if (next.top !== top || next.height !== height) view.value = next;
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    const scrolled = () => {
      measure();
      const gap = element.scrollHeight - element.clientHeight - element.scrollTop;
      box.onPlace?.(gap < rowHeight * 1.5, element.scrollTop < rowHeight * 3);
    };
    element.addEventListener("scroll", scrolled, { passive: true });
    // It is measured when it is laid out, and not before: to ask for its size here would lay all out once more.
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", scrolled);
    };
  }, []);
  box.onPlace = onPlace;

  useLayoutEffect(() => {
    if (follow) box.current.scrollTop = box.current.scrollHeight;
  });

  useLayoutEffect(() => {
    if (active === undefined || active < 0 || active === lastActive.current) return;
    lastActive.current = active;
    const element = box.current;
    const top = active * rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + rowHeight > element.scrollTop + element.clientHeight) element.scrollTop = top + rowHeight - element.clientHeight;
  }, [active]);

  const keyDown = (event) => {
    if (event.target !== box.current || !onMove) return;
    const page = Math.max(1, Math.floor(box.current.clientHeight / rowHeight) - 1);
    const at = active ?? -1;
    const to = {
      ArrowDown: at + 1, ArrowUp: at - 1, j: at + 1, k: at - 1,
      PageDown: at + page, PageUp: at - page, Home: 0, End: count - 1,
    }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) {
      onKey?.(event);
      return;
    }
    event.preventDefault();
    if (count > 0) onMove(Math.min(count - 1, Math.max(0, to)));
  };

  const { top, height } = view.value;
  const first = Math.max(0, Math.min(count, Math.floor(top / rowHeight)) - OVERSCAN);
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + OVERSCAN);
  const pool = Math.ceil(height / rowHeight) + 2 * OVERSCAN + 2;
  // A row that stays in sight while it is scrolled is the very same element, which is then not looked at again.
  const before = made.current.props === props && made.current.pool === pool ? made.current.rows : new Map();
  const kept = new Map();
  for (let index = first; index < last; index += 1) {
    const key = recycles ? index % pool : keyOf(index);
    kept.set(index, before.get(index) ?? html`<div key=${key} class="vrow" style=${{ transform: `translateY(${index * rowHeight}px)`, height: `${rowHeight}px` }}>${row(index)}</div>`);
  }
  made.current = { props, pool, rows: kept };
  const rows = [...kept.values()];
  // In the order of their places, not of their rows: an element that gets another row stays where it is in the document.
  if (recycles) rows.sort((a, b) => a.key - b.key);
  return html`<div class=${classes("vlist", className)} ref=${box} tabIndex=${0} role=${role} aria-label=${label}
    aria-activedescendant=${onMove && active >= 0 ? `${label}-${active}`.replaceAll(" ", "-") : undefined} onKeyDown=${keyDown}>
    <div class="vspace" style=${{ height: `${count * rowHeight}px` }}>${rows}</div>
  </div>`;
}
