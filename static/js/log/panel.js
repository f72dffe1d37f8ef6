// The log of a container's page: feeds the store from the live line, and wires the toolbar to the view.

import { LogStore, finder, gapItem, lineItem, markItem } from './store.js';
import { LogView } from './view.js';

/** @typedef {import('./rows.js').Item} Item */

const OLDER_LINES = 1000;
const GAP_LINES = 2000;
const LOAD_MARGIN_PX = 600;
const ANNOUNCE_MS = 5000;
const COUNT_MS = 1000;

export class LogPanel {
  store = new LogStore();
  /** @type {Set<string>} */
  lanes = new Set(['stdout', 'stderr', 'vm', 'event', 'gap']);
  /** @type {RegExp | null} */
  find = null;
  mode = 'highlight';
  unseen = 0;
  isReadingOlder = false;
  isDetached = false;
  hasEverAsked = false;
  lastAnnounced = 0;
  lastCounted = 0;
  stored = 0;
  ended = false;

  /** @param {HTMLElement} root @param {import('../live.js').LiveLine} live */
  constructor(root, live) {
    this.root = root;
    this.live = live;
    this.view = new LogView(root);
    this.linesUrl = root.dataset.linesUrl ?? '';
    this.topic = `log:${root.dataset.log}`;
    this.#wire();
    live.subscribe(this.topic, {
      params: () => (this.hasEverAsked && !this.isDetached ? { after: this.store.lastSeq } : {}),
      receive: (message) => this.#receive(message),
    });
    live.subscribe(`marks:${root.dataset.log}`, {
      params: () => {
        this.#forgetMarks();
        return {};
      },
      receive: (message) => message.marks && this.#addMarks(message.marks.map(markItem)),
    });
  }

  /** @param {string} selector @returns {HTMLElement} */
  #part(selector) {
    return /** @type {HTMLElement} */ (this.root.querySelector(selector));
  }

  #wire() {
    this.#part('[data-follow]').addEventListener('click', () => (this.view.isFollowing ? this.#unfollow() : this.#follow()));
    this.#part('[data-pill]').addEventListener('click', () => this.#follow());
    this.view.addEventListener('user-scroll', () => this.#userScrolled());
    this.view.addEventListener('drawn', () => this.#drawn());
    const input = /** @type {HTMLInputElement} */ (this.#part('[data-find]'));
    let timer = 0;
    input.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#setFind(input.value), 150);
    });
    input.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.#step(event.shiftKey ? -1 : 1);
    });
    for (const button of this.root.querySelectorAll('[data-hit]')) {
      button.addEventListener('click', () => this.#step(Number(button.dataset.hit)));
    }
    for (const button of this.root.querySelectorAll('[data-mode]')) {
      button.addEventListener('click', () => this.#setMode(button.dataset.mode));
    }
    for (const chip of this.root.querySelectorAll('[data-lane]')) {
      chip.addEventListener('click', () => this.#toggleLane(chip));
    }
    this.#toggle('[data-utc]', (on) => (this.view.look.utc = on));
    this.#toggle('[data-wrap]', (on) => (this.view.look.wrap = on));
    this.view.list.addEventListener('click', (event) => this.#clicked(event));
    this.view.view.addEventListener('keydown', (event) => {
      if (event.key === 'End') this.#follow();
    });
  }

  /** @param {string} selector @param {(on: boolean) => void} set */
  #toggle(selector, set) {
    const button = this.#part(selector);
    button.addEventListener('click', () => {
      const on = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', String(on));
      set(on);
      this.view.keepingPlace(() => this.view.rows.replace(this.view.rows.items, this.view.measure));
    });
  }

  /** @param {Record<string, any>} message */
  #receive(message) {
    if (message.start) this.#begin(message.start);
    if (message.lines) this.#append(message.lines.map(lineItem));
    if (message.gap) this.#append([this.#gap(message.gap[0], message.gap[1])]);
    if (message.end) this.ended = true;
    if (message.error) this.#say(message.error);
    this.#showEmpty();
  }

  /** @param {{after: number, last: number, resumed: boolean}} start */
  #begin(start) {
    this.hasEverAsked = true;
    this.stored = Math.max(this.stored, start.last);
    if (start.resumed && start.after === this.store.lastSeq) return;
    // The log was erased meanwhile, or this is the first time: begin from its tail.
    const marks = this.store.items.filter((item) => item.seq === 0);
    this.store.clear();
    this.store.append(marks.map((mark) => ({ ...mark, dead: false })));
    this.store.lastSeq = start.after;
    this.isDetached = false;
    this.view.replace(this.#chosen(this.store.items));
  }

  /** @param {number} from @param {number} to */
  #gap(from, to) {
    return gapItem(from, to, this.store.items.at(-1)?.us ?? Date.now() * 1000);
  }

  /** @param {Item[]} items */
  #append(items) {
    this.stored = Math.max(this.stored, items.at(-1)?.to ?? items.at(-1)?.seq ?? 0);
    this.ended = false;
    if (!this.view.isFollowing) this.unseen += items.length;
    if (this.isDetached) {
      this.#showCounts();
      return;
    }
    const dropped = this.store.append(items);
    if (dropped) this.view.dropDead();
    this.view.push(this.#chosen(items));
    this.view.update();
    this.#announce(items.length);
  }

  #forgetMarks() {
    const isMark = (item) => item.lane === 'vm' || item.lane === 'event';
    if (!this.store.items.some(isMark)) return;
    this.store.items = this.store.items.filter((item) => !isMark(item));
    this.store.counts.vm = 0;
    this.store.counts.event = 0;
  }

  /** @param {Item[]} marks */
  #addMarks(marks) {
    this.store.place(marks);
    this.view.keepingPlace(() => this.view.rows.replace(this.#chosen(this.store.items), this.view.measure));
    this.#showEmpty();
  }

  /** @param {Item[]} items */
  #chosen(items) {
    const isFiltering = this.mode === 'filter' && this.find;
    if (!isFiltering && this.lanes.size === 5) return items.slice();
    return items.filter((item) => this.lanes.has(item.lane) && (!isFiltering || this.#matches(item)));
  }

  /** @param {Item} item */
  #matches(item) {
    if (!this.find) return false;
    this.find.lastIndex = 0;
    return this.find.test(item.text);
  }

  #rechoose() {
    this.view.keepingPlace(() => this.view.rows.replace(this.#chosen(this.store.items), this.view.measure));
    if (this.view.isFollowing) this.view.toEnd();
    this.#showEmpty();
  }

  /** @param {string} text */
  #setFind(text) {
    this.find = finder(text);
    this.view.look.mark = this.find;
    this.view.look.current = null;
    if (this.mode === 'filter') this.#rechoose();
    else this.view.redraw();
    this.#showHits();
  }

  /** @param {string | undefined} mode */
  #setMode(mode) {
    this.mode = mode ?? 'highlight';
    for (const button of this.root.querySelectorAll('[data-mode]')) {
      button.setAttribute('aria-pressed', String(button.dataset.mode === this.mode));
    }
    this.#rechoose();
    this.#showHits();
  }

  /** @param {Element} chip */
  #toggleLane(chip) {
    const lane = chip.dataset.lane;
    if (this.lanes.has(lane)) this.lanes.delete(lane);
    else this.lanes.add(lane);
    chip.setAttribute('aria-pressed', String(this.lanes.has(lane)));
    this.#rechoose();
    this.#showHits();
  }

  /** Go to the next or previous hit. @param {number} direction */
  #step(direction) {
    if (!this.find) return;
    const { items } = this.view.rows;
    const current = this.view.look.current ? items.indexOf(this.view.look.current) : -1;
    const start = current >= 0 ? current : direction > 0 ? -1 : items.length;
    for (let index = start + direction; index >= 0 && index < items.length; index += direction) {
      if (!this.#matches(items[index])) continue;
      this.#unfollow();
      this.view.look.current = items[index];
      this.view.show(index);
      this.#showHits();
      return;
    }
  }

  #showHits() {
    const place = this.#part('[data-find-count]');
    this.lastCounted = performance.now();
    if (!this.find) {
      place.textContent = '';
      return;
    }
    let count = 0;
    let position = 0;
    for (const item of this.view.rows.items) {
      if (this.#matches(item)) count += 1;
      if (item === this.view.look.current) position = count;
    }
    place.textContent = position ? `${position} of ${count.toLocaleString('en')}` : `${count.toLocaleString('en')} ${count === 1 ? 'line' : 'lines'}`;
  }

  #follow() {
    this.view.isFollowing = true;
    this.unseen = 0;
    if (this.isDetached) {
      this.isDetached = false;
      this.hasEverAsked = false;
      this.live.renew(this.topic);
    }
    this.view.toEnd();
    this.view.update();
    this.#showFollow();
  }

  #unfollow() {
    this.view.isFollowing = false;
    this.#showFollow();
  }

  #showFollow() {
    this.#part('[data-follow]').setAttribute('aria-pressed', String(this.view.isFollowing));
  }

  #userScrolled() {
    if (this.view.isFollowing && !this.view.isAtEnd) this.#unfollow();
    else if (!this.view.isFollowing && this.view.isAtEnd && !this.isDetached) this.#follow();
    if (this.view.view.scrollTop < LOAD_MARGIN_PX) this.#readOlder();
  }

  async #readOlder() {
    const first = this.store.firstSeq;
    if (this.isReadingOlder || first <= 1) return;
    this.isReadingOlder = true;
    try {
      const from = Math.max(first - OLDER_LINES, 1);
      const items = await this.#fetchLines(from, first - from);
      const older = items.filter((item) => item.seq < first);
      if (!older.length) return;
      this.view.keepingPlace(() => {
        if (this.store.prepend(older)) this.isDetached = true;
        this.view.rows.replace(this.#chosen(this.store.items), this.view.measure);
      });
    } catch {
      this.#say('Older lines could not be read. Scroll again to try once more.');
    } finally {
      this.isReadingOlder = false;
    }
  }

  /** @param {number} from @param {number} limit @returns {Promise<Item[]>} */
  async #fetchLines(from, limit) {
    const answer = await fetch(`${this.linesUrl}?from_seq=${from}&limit=${limit}`, { headers: { Accept: 'application/json' } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return (await answer.json()).lines.map(lineItem);
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    if (!(event.target instanceof Element)) return;
    const item = event.target.closest('li')?.item;
    if (!item) return;
    if (event.target.closest('[data-load]')) this.#loadGap(item);
    else if (!getSelection()?.toString()) {
      this.view.look.current = this.view.look.current === item ? null : item;
      this.view.redraw();
    }
  }

  /** @param {Item} gap */
  async #loadGap(gap) {
    try {
      const limit = Math.min((gap.to ?? gap.seq) - gap.seq + 1, GAP_LINES);
      const items = (await this.#fetchLines(gap.seq, limit)).filter((item) => item.seq <= (gap.to ?? 0));
      const reached = items.at(-1)?.seq ?? (gap.to ?? 0);
      if (reached < (gap.to ?? 0)) items.push(gapItem(reached + 1, gap.to ?? 0, gap.us));
      this.view.keepingPlace(() => {
        this.store.fill(gap, items);
        this.view.rows.replace(this.#chosen(this.store.items), this.view.measure);
      });
    } catch {
      this.#say('The missing lines could not be read. Try again.');
    }
  }

  #drawn() {
    const pill = this.#part('[data-pill]');
    const isShown = !this.view.isFollowing && this.unseen > 0;
    if (pill.hidden === isShown) pill.hidden = !isShown;
    if (isShown) {
      const words = pill.querySelector('span');
      if (words) words.textContent = `${this.unseen.toLocaleString('en')} new ${this.unseen === 1 ? 'line' : 'lines'}`;
    }
    this.#showCounts();
    if (this.find && performance.now() - this.lastCounted > COUNT_MS) this.#showHits();
  }

  #showCounts() {
    for (const place of this.root.querySelectorAll('[data-lane-count]')) {
      const text = this.store.counts[place.dataset.laneCount].toLocaleString('en');
      if (place.textContent !== text) place.textContent = text;
    }
    const stored = this.#part('[data-stored]');
    const text = `${this.stored.toLocaleString('en')} ${this.stored === 1 ? 'line' : 'lines'} stored`;
    if (stored.textContent !== text) stored.textContent = text;
  }

  #showEmpty() {
    const place = this.#part('[data-empty]');
    const isEmpty = this.view.rows.length === 0;
    place.hidden = !isEmpty;
    if (!isEmpty) return;
    if (this.store.items.length) {
      const hidden = this.store.items.length.toLocaleString('en');
      place.textContent = `The filter hides all ${hidden} lines. Clear it, or turn the lanes on.`;
    } else {
      place.textContent = 'Nothing has been written yet. What the container prints to stdout and stderr appears here; what it writes to files does not.';
    }
  }

  /** @param {number} count */
  #announce(count) {
    const now = performance.now();
    if (now - this.lastAnnounced < ANNOUNCE_MS) return;
    this.lastAnnounced = now;
    this.#say(`${count} new lines`);
  }

  /** @param {string} text */
  #say(text) {
    this.#part('[data-announce]').textContent = text;
  }
}
