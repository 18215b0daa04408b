// The stack dump of a work's process: its threads and its tasks.

import { get } from "./api.js";
import { html, useEffect, useState } from "./html.js";
import { Button, Clock, Copy, Empty, Problem, Section } from "./ui.js";

const asText = (one) => `${one.name}\n${one.frames.map((frame) => `  File "${frame.file}", line ${frame.line}, in ${frame.function}\n    ${frame.text}`).join("\n")}`;

const Frames = ({ one }) => html`<details class="frames" open>
  <summary><code>${one.name}</code><span class="faint num">${one.frames.length} ${one.frames.length === 1 ? "frame" : "frames"}</span></summary>
  <ol>${[...one.frames].reverse().map((frame, index) => html`<li key=${index} class=${index === 0 ? "innermost" : undefined}>
    <span class="frame-place"><code>${frame.function}</code><span class="faint ellipsis" title=${frame.file}>${frame.file}:${frame.line}</span></span>
    <code class="frame-text">${frame.text}</code></li>`)}</ol>
</details>`;

export function StackView({ name }) {
  const [found, setFound] = useState({ stack: null, error: null, isLoading: true });
  const dump = async () => {
    setFound((before) => ({ ...before, isLoading: true }));
    try {
      setFound({ stack: await get(["works", name, "stack"]), error: null, isLoading: false });
    } catch (error) {
      setFound({ stack: null, error, isLoading: false });
    }
  };
  useEffect(() => {
    dump();
  }, [name]);
  const { stack, error, isLoading } = found;
  return html`<div class="stack">
    <div class="bar"><${Button} icon="retry" label="Dump again" run=${dump} />
      ${stack && html`<span class="faint">at <${Clock} time=${stack.time} milliseconds />, innermost frame first</span>`}
      <span class="spacer"></span>
      ${stack && html`<${Copy} label="Copy the stacks" text=${[...stack.threads, ...stack.tasks].map(asText).join("\n\n")} />`}</div>
    ${error && html`<${Problem} error=${error} />`}
    ${!stack && !error && html`<p class="faint">${isLoading ? "Querying the process…" : ""}</p>`}
    ${stack && stack.threads.length + stack.tasks.length === 0 && html`<${Empty} icon="stack" title="No user code is running">All threads and tasks of the process are in framework code.<//>`}
    ${stack?.threads.length > 0 && html`<${Section} title="Threads">${stack.threads.map((one, index) => html`<${Frames} key=${index} one=${one} />`)}<//>`}
    ${stack?.tasks.length > 0 && html`<${Section} title="Tasks">${stack.tasks.map((one, index) => html`<${Frames} key=${index} one=${one} />`)}<//>`}
  </div>`;
}
