// The view library, in one place: everything else imports it from here.

import htm from "../vendor/htm.js";
import { h } from "../vendor/preact.js";

export { Fragment, createRef, render } from "../vendor/preact.js";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-hooks.js";
export { batch, computed, effect, signal, untracked, useComputed, useSignal, useSignalEffect } from "../vendor/signals.js";

export const html = htm.bind(h);

/** Names of classes, those that are false left out. */
export const classes = (...names) => names.filter(Boolean).join(" ");
