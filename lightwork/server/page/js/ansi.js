// Terminal control sequences in a line: colours become CSS classes, other sequences are removed. Pure functions.

const SEQUENCE = /\x1b\[([0-9;:]*)([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\x1b/g;

function styled(style, codes) {
  let { color, bold, dim } = style;
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index];
    if (code === 0) [color, bold, dim] = [null, false, false];
    else if (code === 1) bold = true;
    else if (code === 2) dim = true;
    else if (code === 22) [bold, dim] = [false, false];
    else if (code >= 30 && code <= 37) color = code - 30;
    else if (code >= 90 && code <= 97) color = code - 82;
    else if (code === 39) color = null;
    else if (code === 38 || code === 48) index += codes[index + 1] === 5 ? 2 : 4; // colours of other palettes
  }
  return { color, bold, dim };
}

/** Split a line into parts: [{text, className}]. A line that overwrites itself (a progress bar) yields its last state. */
export function ansiParts(line) {
  const text = line.slice(line.lastIndexOf("\r", line.length - 2) + 1);
  if (!/[\x00-\x08\x0b-\x1f\x7f]/.test(text)) return [{ text, className: "" }];
  const parts = [];
  let style = { color: null, bold: false, dim: false };
  let end = 0;
  const push = (until) => {
    if (until <= end) return;
    const names = [style.color !== null && `ansi-${style.color}`, style.bold && "ansi-bold", style.dim && "ansi-dim"];
    parts.push({ text: text.slice(end, until), className: names.filter(Boolean).join(" ") });
  };
  for (const found of text.matchAll(SEQUENCE)) {
    push(found.index);
    end = found.index + found[0].length;
    if (found[2] === "m") style = styled(style, (found[1] || "0").split(/[;:]/).map(Number));
  }
  push(text.length);
  return parts;
}
