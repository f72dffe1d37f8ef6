// A line's bytes as text: ANSI colours to classes, everything else that controls a terminal taken out.

const TAB = 8;
// CSI sequences, OSC strings, and other two-character escapes (ECMA-48).
const ESCAPES = /\u001b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\^_])|[\u0000-\u0008\u000b-\u001a\u001c-\u001f\u007f-\u009f]/g;
const SGR = /^\u001b\[([0-9;]*)m$/;
// Scripts whose characters take two cells (East Asian Wide), and emoji.
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}]|[\u{20000}-\u{3fffd}]/gu;
const ZERO = /[\u0300-\u036f\u200b-\u200f\ufe00-\ufe0f]/g;
const ONLY_PLAIN = /^[\u0020-\u007e]*$/;

/** @typedef {{text: string, css: string}} Segment */

/** The line without escapes, tabs expanded: what is searched, and measured. @param {string} raw */
export function plainText(raw) {
  if (ONLY_PLAIN.test(raw)) return raw;
  return expandTabs(raw.replace(ESCAPES, ''));
}

/** @param {string} text */
function expandTabs(text) {
  if (!text.includes('\t')) return text;
  let out = '';
  for (const character of text) {
    out += character === '\t' ? ' '.repeat(TAB - (out.length % TAB)) : character;
  }
  return out;
}

/** How many cells of a fixed-width font a text takes. @param {string} text */
export function cellsOf(text) {
  if (ONLY_PLAIN.test(text)) return text.length;
  let cells = [...text].length;
  cells += text.match(WIDE)?.length ?? 0;
  cells -= text.match(ZERO)?.length ?? 0;
  return Math.max(cells, 0);
}

/**
 * The line in pieces of one colour; their texts together are `plainText(raw)`.
 * @param {string} raw
 * @returns {Segment[]}
 */
export function segmentsOf(raw) {
  if (!raw.includes('\u001b')) return [{ text: plainText(raw), css: '' }];
  /** @type {Segment[]} */
  const segments = [];
  let css = '';
  let start = 0;
  const add = (piece) => {
    if (piece) segments.push({ text: piece, css });
  };
  for (const match of raw.matchAll(ESCAPES)) {
    add(raw.slice(start, match.index));
    start = match.index + match[0].length;
    const sgr = SGR.exec(match[0]);
    if (sgr) css = nextCss(css, sgr[1]);
  }
  add(raw.slice(start));
  return withTabs(segments);
}

/** Tabs depend on what stands before them in the line. @param {Segment[]} segments */
function withTabs(segments) {
  if (!segments.some((segment) => segment.text.includes('\t'))) return segments;
  let before = '';
  return segments.map(({ text, css }) => {
    const whole = expandTabs(before + text);
    const piece = whole.slice(before.length);
    before = whole;
    return { text: piece, css };
  });
}

/** @param {string} css @param {string} codes */
function nextCss(css, codes) {
  const classes = new Set(css.split(' ').filter(Boolean));
  const numbers = codes.split(';').map(Number);
  for (let index = 0; index < numbers.length; index += 1) {
    const code = numbers[index];
    if (code === 0) classes.clear();
    else if (code === 1) classes.add('a-b');
    else if (code === 2) classes.add('a-dim');
    else if (code === 3) classes.add('a-i');
    else if (code === 4) classes.add('a-u');
    else if (code === 22) { classes.delete('a-b'); classes.delete('a-dim'); }
    else if (code === 23) classes.delete('a-i');
    else if (code === 24) classes.delete('a-u');
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) setColour(classes, code % 10);
    else if (code === 39) setColour(classes, -1);
    // 256 and true colours would not keep the contrast of the theme: skipped with their arguments.
    else if (code === 38 || code === 48) index += numbers[index + 1] === 5 ? 2 : 4;
  }
  return [...classes].join(' ');
}

/** @param {Set<string>} classes @param {number} colour */
function setColour(classes, colour) {
  for (let other = 0; other < 8; other += 1) classes.delete(`a-${other}`);
  if (colour >= 0) classes.add(`a-${colour}`);
}
