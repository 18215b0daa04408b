// A virtual list: only visible rows are in the document. All rows have the same height.

import { classes, html, signal, useLayoutEffect, useMemo, useRef } from "./html.js";

const OVERSCAN = 8;

/**
 * @param {object} props
 * @param {number} props.count
 * @param {number} props.rowHeight
 * @param {(index: number) => object} props.row Returns the element of a row; its key is from `keyOf`. The function must
 *   not read signals, only the components in the row may: its result is reused until the list itself is rendered again.
 * @param {(index: number) => string|number} props.keyOf
 * @param {number} [props.active] The selected row. The list scrolls to it when it changes.
 * @param {(index: number) => void} [props.onMove] Called when the arrow keys select another row.
 * @param {(event: KeyboardEvent) => void} [props.onKey] Called for any other key.
 * @param {boolean} [props.recycles] Whether new rows reuse the elements of rows that have left. This is cheaper if a
 *   row has many elements. The order in the document then differs from the order of the rows.
 * @param {boolean} [props.follow] Whether to scroll to the end when rows are added.
 * @param {(isAtEnd: boolean, isAtStart: boolean) => void} [props.onPlace] Called when the list scrolls.
 * @param {{current: HTMLElement}} [props.box] Receives the element that scrolls.
 */
export function VirtualList(props) {
  const { count, rowHeight, row, keyOf, active, onMove, onKey, follow = false, recycles = false, onPlace, label, role = "listbox", className } = props;
  const own = useRef();
  const box = props.box ?? own;
  // Assume the height of the window until the real height has been measured.
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
    // The observer measures after layout. Reading the size here would force another layout.
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
  // A row that stays visible while scrolling keeps the same element object, so it is not rendered again.
  const before = made.current.props === props && made.current.pool === pool ? made.current.rows : new Map();
  const kept = new Map();
  for (let index = first; index < last; index += 1) {
    const key = recycles ? index % pool : keyOf(index);
    kept.set(index, before.get(index) ?? html`<div key=${key} class="vrow" style=${{ transform: `translateY(${index * rowHeight}px)`, height: `${rowHeight}px` }}>${row(index)}</div>`);
  }
  made.current = { props, pool, rows: kept };
  const rows = [...kept.values()];
  // Sort by key and not by row: an element that is reused for another row stays at its position in the document.
  if (recycles) rows.sort((a, b) => a.key - b.key);
  return html`<div class=${classes("vlist", className)} ref=${box} tabIndex=${0} role=${role} aria-label=${label}
    aria-activedescendant=${onMove && active >= 0 ? `${label}-${active}`.replaceAll(" ", "-") : undefined} onKeyDown=${keyDown}>
    <div class="vspace" style=${{ height: `${count * rowHeight}px` }}>${rows}</div>
  </div>`;
}
