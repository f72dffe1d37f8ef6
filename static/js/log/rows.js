// Rows of the virtual list with their heights, in units of one text line: find by offset, offset by index.

const BLOCK = 256;

/**
 * @typedef {object} Item One thing in the log.
 * @property {number} seq Sequence number of a line, 0 of a mark or gap.
 * @property {number} us Microseconds since the epoch.
 * @property {'stdout' | 'stderr' | 'vm' | 'event' | 'gap'} lane
 * @property {string} raw As the server sent it.
 * @property {string} text Plain text, for search and width.
 * @property {boolean} partial The line goes on in the next item of its lane.
 * @property {number} [to] Last sequence number of a gap.
 * @property {boolean} [dead] Dropped from the ring.
 */

export class Rows {
  /** @type {Item[]} */
  items = [];
  /** @type {number[]} */
  #units = [];
  /** @type {number[]} Sum of units of each full or partial block. */
  #blocks = [];
  total = 0;

  get length() {
    return this.items.length;
  }

  /** @param {Item} item @param {number} units */
  push(item, units) {
    const block = Math.floor(this.items.length / BLOCK);
    this.items.push(item);
    this.#units.push(units);
    this.#blocks[block] = (this.#blocks[block] ?? 0) + units;
    this.total += units;
  }

  /** Take `count` items away from an index on. @param {number} index @param {number} count */
  remove(index, count) {
    this.items.splice(index, count);
    this.#units.splice(index, count);
    this.#sum();
  }

  /** @param {Item[]} items @param {(item: Item) => number} measure */
  replace(items, measure) {
    this.items = items;
    this.#units = items.map(measure);
    this.#sum();
  }

  #sum() {
    this.#blocks = [];
    this.total = 0;
    for (let index = 0; index < this.#units.length; index += 1) {
      const block = Math.floor(index / BLOCK);
      this.#blocks[block] = (this.#blocks[block] ?? 0) + this.#units[index];
      this.total += this.#units[index];
    }
  }

  /** Height of one row. @param {number} index */
  unitsAt(index) {
    return this.#units[index] ?? 0;
  }

  /** Units above a row. @param {number} index */
  offsetOf(index) {
    const block = Math.floor(index / BLOCK);
    let offset = 0;
    for (let one = 0; one < block; one += 1) offset += this.#blocks[one];
    for (let one = block * BLOCK; one < index; one += 1) offset += this.#units[one];
    return offset;
  }

  /** The row at an offset, and the units above it. @param {number} offset @returns {[number, number]} */
  at(offset) {
    let above = 0;
    let block = 0;
    while (block < this.#blocks.length - 1 && above + this.#blocks[block] <= offset) {
      above += this.#blocks[block];
      block += 1;
    }
    let index = block * BLOCK;
    while (index < this.items.length - 1 && above + this.#units[index] <= offset) {
      above += this.#units[index];
      index += 1;
    }
    return [Math.min(index, Math.max(this.items.length - 1, 0)), above];
  }
}
