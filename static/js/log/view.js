// The virtual list: some dozens of recycled rows over a tall empty space, whatever the log's length.

import { Rows } from './rows.js';
import { cellsOf } from './text.js';
import { drawRow } from './draw.js';

/** @typedef {import('./rows.js').Item} Item */

export const LINE_PX = 20;
const GAP_UNITS = 2;
// A line of 16 KiB would be as high as the screen; browsers end at some 33 million pixels besides.
const MOST_UNITS = 16;
const SPARE_ROWS = 8;
const NEAR_END_PX = 30;

/**
 * @typedef {object} Look
 * @property {boolean} utc
 * @property {boolean} wrap
 * @property {RegExp | null} mark
 * @property {Item | null} current
 */

export class LogView extends EventTarget {
  rows = new Rows();
  /** @type {Look} */
  look = { utc: true, wrap: true, mark: null, current: null };
  #columns = 80;
  #frame = 0;
  #epoch = 0;
  #expectedTop = 0;
  /** @type {HTMLLIElement[]} */
  #pool = [];

  /** @param {HTMLElement} root Has [data-view] with [data-space] and [data-lines] in it. */
  constructor(root) {
    super();
    this.view = /** @type {HTMLElement} */ (root.querySelector('[data-view]'));
    this.space = /** @type {HTMLElement} */ (root.querySelector('[data-space]'));
    this.list = /** @type {HTMLElement} */ (root.querySelector('[data-lines]'));
    this.view.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(this.view);
    this.measure = this.measure.bind(this);
  }

  get isAtEnd() {
    return this.view.scrollTop + this.view.clientHeight >= this.rows.total * LINE_PX - NEAR_END_PX;
  }

  /** Height of an item in lines. @param {Item} item */
  measure(item) {
    if (item.lane === 'gap') return GAP_UNITS;
    if (!this.look.wrap) return 1;
    item.cells ??= cellsOf(item.text);
    return Math.min(Math.max(Math.ceil(item.cells / this.#columns), 1), MOST_UNITS);
  }

  /** @param {Item[]} items */
  replace(items) {
    this.rows.replace(items, this.measure);
    this.redraw();
  }

  /** @param {Item[]} items */
  push(items) {
    for (const item of items) this.rows.push(item, this.measure(item));
  }

  /** Take away rows whose items have been dropped from the ring's old end; what is seen stays in place. */
  dropDead() {
    let count = 0;
    while (count < this.rows.length && this.rows.items[count].dead) count += 1;
    if (!count) return;
    const height = this.rows.offsetOf(count) * LINE_PX;
    this.rows.remove(0, count);
    if (!this.isFollowing) this.#scrollTo(Math.max(this.view.scrollTop - height, 0));
  }

  /** Keep the row in sight where it is while rows before it change. @param {() => void} change */
  keepingPlace(change) {
    const [first] = this.rows.at(Math.floor(this.view.scrollTop / LINE_PX));
    // A line, not a mark: marks stay at the top of the log while older lines come in below them.
    const line = this.rows.items.slice(first, first + 200).findIndex((item) => item.seq > 0);
    const index = first + Math.max(line, 0);
    const anchor = this.rows.items[index];
    const within = this.view.scrollTop - this.rows.offsetOf(index) * LINE_PX;
    change();
    this.space.style.height = `${this.rows.total * LINE_PX}px`;
    const now = anchor ? this.rows.items.indexOf(anchor) : -1;
    if (now >= 0) this.#scrollTo(this.rows.offsetOf(now) * LINE_PX + within);
    this.redraw();
  }

  isFollowing = true;

  /** @param {number} index */
  show(index) {
    const top = this.rows.offsetOf(index) * LINE_PX;
    this.#scrollTo(Math.max(top - this.view.clientHeight / 3, 0));
    this.redraw();
  }

  toEnd() {
    this.space.style.height = `${this.rows.total * LINE_PX}px`;
    this.#scrollTo(this.rows.total * LINE_PX);
  }

  /** Draw everything anew: the look has changed. */
  redraw() {
    this.#epoch += 1;
    this.update();
  }

  /** Draw what is new in the next frame. */
  update() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** @param {number} top */
  #scrollTo(top) {
    // Not left to the browser's own limit: rows not yet moved still stick out below the space.
    this.view.scrollTop = Math.min(top, Math.max(this.rows.total * LINE_PX - this.view.clientHeight, 0));
    this.#expectedTop = this.view.scrollTop;
  }

  #scrolled() {
    this.update();
    // Events come late and merged: what stands where we put it was not moved by the operator.
    if (Math.abs(this.view.scrollTop - this.#expectedTop) < 2) return;
    this.#expectedTop = this.view.scrollTop;
    this.dispatchEvent(new Event('user-scroll'));
  }

  #resized() {
    const probe = document.createElement('span');
    probe.className = 'm probe';
    probe.textContent = '0'.repeat(100);
    const row = document.createElement('li');
    row.append(document.createElement('span'), document.createElement('span'), document.createElement('span'), probe);
    row.className = 'measure';
    this.list.append(row);
    const cellPx = probe.getBoundingClientRect().width / 100;
    const style = getComputedStyle(row);
    const taken = style.gridTemplateColumns.split(' ').slice(0, -1).reduce((sum, one) => sum + parseFloat(one), 0);
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    row.remove();
    const columns = Math.max(Math.floor((this.view.clientWidth - taken - padding) / cellPx), 16);
    if (columns === this.#columns || !Number.isFinite(columns)) {
      this.update();
      return;
    }
    this.#columns = columns;
    this.keepingPlace(() => this.rows.replace(this.rows.items, this.measure));
    if (this.isFollowing) this.toEnd();
  }

  #draw() {
    const { rows } = this;
    this.space.style.height = `${rows.total * LINE_PX}px`;
    if (this.isFollowing) this.toEnd();
    const [first, above] = rows.at(Math.floor(this.view.scrollTop / LINE_PX));
    let used = 0;
    let height = above - Math.floor(this.view.scrollTop / LINE_PX);
    const visible = Math.ceil(this.view.clientHeight / LINE_PX) + SPARE_ROWS;
    while (first + used < rows.length && height < visible) {
      this.#fill(used, rows.items[first + used], rows.unitsAt(first + used));
      height += rows.unitsAt(first + used);
      used += 1;
    }
    for (let index = used; index < this.#pool.length; index += 1) this.#pool[index].hidden = true;
    this.list.style.transform = `translateY(${above * LINE_PX}px)`;
    this.dispatchEvent(new Event('drawn'));
  }

  /** @param {number} slot @param {Item} item @param {number} units */
  #fill(slot, item, units) {
    let row = this.#pool[slot];
    if (!row) {
      row = document.createElement('li');
      this.#pool.push(row);
      this.list.append(row);
    }
    row.hidden = false;
    if (row.item === item && row.epoch === this.#epoch) return;
    row.item = item;
    row.epoch = this.#epoch;
    row.style.height = `${units * LINE_PX}px`;
    drawRow(row, item, this.look);
  }
}
