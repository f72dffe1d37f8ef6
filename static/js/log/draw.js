// One row of the log as DOM: text only ever through textContent.

import { segmentsOf } from './text.js';

/** @typedef {import('./rows.js').Item} Item */

const LANE_NAMES = { stdout: 'container', stderr: 'container, standard error', vm: 'VM', event: 'event' };
const DOTS = { stdout: 'c', stderr: 'c er', vm: '', event: 'x' };
const ROW_CLASSES = { stdout: '', stderr: 'er', vm: 'lv', event: 'ev', gap: 'gap' };

/** @param {HTMLElement} row @param {Item} item @param {import('./view.js').Look} look */
export function drawRow(row, item, look) {
  row.className = ROW_CLASSES[item.lane];
  if (item === look.current) row.classList.add('at');
  if (!look.wrap) row.classList.add('nowrap');
  if (item.lane === 'gap') {
    row.replaceChildren(element('span', '', item.text), loadButton());
    return;
  }
  const [clock, fraction, whole] = timeText(item.us, look.utc);
  const time = element('span', 't', clock);
  time.append(element('span', 'd', fraction));
  time.title = whole;
  const ways = element('span', 'ways');
  ways.append(element('i', DOTS[item.lane]), element('span', 'vh', LANE_NAMES[item.lane]));
  const message = element('span', 'm');
  fillMessage(message, item, look.mark);
  row.replaceChildren(time, ways, element('span', 'l', item.lane === 'stderr' ? 'err' : ''), message);
}

/** @param {HTMLElement} message @param {Item} item @param {RegExp | null} mark */
function fillMessage(message, item, mark) {
  const hits = mark ? hitsIn(item.text, mark) : [];
  let offset = 0;
  for (const { text, css } of segmentsOf(item.raw)) {
    const target = css ? element('span', css) : message;
    appendMarked(target, text, offset, hits);
    if (css) message.append(target);
    offset += text.length;
  }
  if (item.partial) message.append(element('span', 'cont', '↩'));
}

/** @param {string} text @param {RegExp} mark @returns {[number, number][]} */
export function hitsIn(text, mark) {
  const hits = [];
  mark.lastIndex = 0;
  for (const match of text.matchAll(mark)) {
    if (match[0]) hits.push([match.index, match.index + match[0].length]);
    if (hits.length >= 200) break;
  }
  return hits;
}

/** @param {HTMLElement} target @param {string} text @param {number} offset @param {[number, number][]} hits */
function appendMarked(target, text, offset, hits) {
  let at = 0;
  for (const [from, to] of hits) {
    const start = Math.max(from - offset, at);
    const end = Math.min(to - offset, text.length);
    if (end <= start) continue;
    if (start > at) target.append(text.slice(at, start));
    target.append(element('mark', '', text.slice(start, end)));
    at = end;
  }
  if (at < text.length) target.append(text.slice(at));
}

/** @param {number} us @param {boolean} utc @returns {[string, string, string]} */
export function timeText(us, utc) {
  const date = new Date(us / 1000);
  const shown = utc ? date : new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  const iso = shown.toISOString();
  const whole = `${iso.slice(0, 10)} ${iso.slice(11, 19)}.${String(us % 1_000_000).padStart(6, '0')} ${utc ? 'UTC' : 'local time'}`;
  return [iso.slice(11, 19), iso.slice(19, 23), whole];
}

function loadButton() {
  const button = element('button', 'btn', 'Load');
  button.type = 'button';
  button.dataset.load = '';
  return button;
}

/** @param {string} name @param {string} [css] @param {string} [text] */
function element(name, css = '', text = '') {
  const made = document.createElement(name);
  if (css) made.className = css;
  if (text) made.textContent = text;
  return made;
}
