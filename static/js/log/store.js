// What this tab has of the log: a ring of at most CAPACITY items in order, and how to find in it.

import { plainText } from './text.js';

/** @typedef {import('./rows.js').Item} Item */

export const CAPACITY = 100_000;
// Dropping the oldest costs a copy: it is done for some thousand at once.
const SLACK = 5_000;
const FLAG_STDERR = 1;
const FLAG_PARTIAL = 2;

/** @param {[number, number, number, string]} packed @returns {Item} */
export function lineItem([seq, us, flags, raw]) {
  return {
    seq,
    us,
    lane: flags & FLAG_STDERR ? 'stderr' : 'stdout',
    raw,
    text: plainText(raw),
    partial: Boolean(flags & FLAG_PARTIAL),
  };
}

/** @param {[number, 'vm' | 'event', string]} packed @returns {Item} */
export function markItem([us, lane, text]) {
  return { seq: 0, us, lane, raw: text, text, partial: false };
}

/** @param {number} from @param {number} to @param {number} us @returns {Item} */
export function gapItem(from, to, us) {
  const count = (to - from + 1).toLocaleString('en');
  const text = `Gap: ${count} lines were not sent to this tab. They are stored.`;
  return { seq: from, to, us, lane: 'gap', raw: text, text, partial: false };
}

export class LogStore {
  /** @type {Item[]} */
  items = [];
  counts = { stdout: 0, stderr: 0, vm: 0, event: 0, gap: 0 };
  lastSeq = 0;

  /** The lowest sequence number held; 0 if there is no line. */
  get firstSeq() {
    return this.items.find((item) => item.seq > 0)?.seq ?? 0;
  }

  /** Add live items at the end; returns how many of the oldest were dropped. @param {Item[]} items */
  append(items) {
    for (const item of items) {
      this.items.push(item);
      this.counts[item.lane] += 1;
      this.lastSeq = Math.max(this.lastSeq, item.to ?? item.seq);
    }
    if (this.items.length <= CAPACITY + SLACK) return 0;
    return this.#drop(0, this.items.length - CAPACITY);
  }

  /** Add older lines before all others; the newest give way if there is no room. @param {Item[]} items */
  prepend(items) {
    const at = this.items.findIndex((item) => item.seq > 0);
    this.insert(at < 0 ? 0 : at, items);
    if (this.items.length <= CAPACITY + SLACK) return 0;
    const dropped = this.items.length - CAPACITY;
    this.#drop(CAPACITY, dropped);
    this.lastSeq = this.items.findLast((item) => item.seq > 0)?.seq ?? 0;
    return dropped;
  }

  /** @param {number} index @param {Item[]} items */
  insert(index, items) {
    for (const item of items) this.counts[item.lane] += 1;
    this.items = [...this.items.slice(0, index), ...items, ...this.items.slice(index)];
  }

  /** Put marks where their time belongs; returns the lowest index that changed. @param {Item[]} marks */
  place(marks) {
    let lowest = this.items.length;
    for (const mark of marks) {
      let index = this.items.length;
      while (index > 0 && this.items[index - 1].us > mark.us) index -= 1;
      this.items.splice(index, 0, mark);
      this.counts[mark.lane] += 1;
      lowest = Math.min(lowest, index);
    }
    return lowest;
  }

  /** Replace a gap by what was loaded for it. @param {Item} gap @param {Item[]} items */
  fill(gap, items) {
    const index = this.items.indexOf(gap);
    if (index < 0) return;
    this.#drop(index, 1);
    this.insert(index, items);
  }

  clear() {
    for (const item of this.items) item.dead = true;
    this.items = [];
    this.counts = { stdout: 0, stderr: 0, vm: 0, event: 0, gap: 0 };
    this.lastSeq = 0;
  }

  /** @param {number} index @param {number} count */
  #drop(index, count) {
    for (const item of this.items.splice(index, count)) {
      item.dead = true;
      this.counts[item.lane] -= 1;
    }
    return count;
  }
}

/** A search text as a test; what is no regular expression is searched as it stands. @param {string} text */
export function finder(text) {
  if (!text) return null;
  try {
    return new RegExp(text, text === text.toLowerCase() ? 'giu' : 'gu');
  } catch {
    return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'gi');
  }
}
