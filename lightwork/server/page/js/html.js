// The view library. All other modules import it from here.

import htm from "../vendor/htm.js";
import { h } from "../vendor/preact.js";

export { Fragment, createRef, render } from "../vendor/preact.js";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-hooks.js";
export { batch, computed, effect, signal, untracked, useComputed, useSignal, useSignalEffect } from "../vendor/signals.js";

export const html = htm.bind(h);

/** Join class names. False values are left out. */
export const classes = (...names) => names.filter(Boolean).join(" ");
