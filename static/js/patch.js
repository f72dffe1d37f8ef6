// Puts what the server sends into the page without losing focus, ticks, or open menus.

/** @type {Map<string, Element[]>} */
const known = new Map();
const SHAPE_ATTRIBUTES = new Set(['d', 'width', 'x', 'class']);

/** @param {string} attribute @param {string} key @returns {Element[]} */
function find(attribute, key) {
  const cacheKey = `${attribute}=${key}`;
  const cached = known.get(cacheKey);
  if (cached?.length && cached.every((element) => element.isConnected)) return cached;
  const found = [...document.querySelectorAll(`[${attribute}="${CSS.escape(key)}"]`)];
  known.set(cacheKey, found);
  return found;
}

/** Write texts by their data-live key. @param {Record<string, string>} texts */
export function patchTexts(texts) {
  for (const [key, text] of Object.entries(texts)) {
    for (const element of find('data-live', key)) {
      if (element.textContent === text) continue;
      element.textContent = text;
      const place = element.closest('[data-nonzero]');
      if (place instanceof HTMLElement) place.hidden = text === '0';
    }
  }
}

/** Set geometry of SVG shapes by their data-live-shape key. @param {Record<string, Record<string, string>>} shapes */
export function patchShapes(shapes) {
  for (const [key, attributes] of Object.entries(shapes)) {
    for (const element of find('data-live-shape', key)) {
      for (const [name, value] of Object.entries(attributes)) {
        if (SHAPE_ATTRIBUTES.has(name)) element.setAttribute(name, value);
      }
    }
  }
}

/**
 * Make an element what the server's HTML says. The server escapes; htmx morphs, which keeps focus and ticks.
 * While the operator types in one of its menus it is left alone and brought up to date afterwards.
 * @param {Element} element
 * @param {string} html
 */
export async function morph(element, html) {
  if (isBusy(element)) {
    element.addEventListener('focusout', () => setTimeout(() => latest.get(element) === html && morph(element, html)), {
      once: true,
    });
    latest.set(element, html);
    return;
  }
  latest.delete(element);
  const open = [...element.querySelectorAll('details[open][id]')].map((details) => details.id);
  if (window.htmx) await window.htmx.swap({ target: element, sourceElement: element, text: html, swap: 'outerMorph' });
  else element.outerHTML = html;
  for (const id of open) document.getElementById(id)?.setAttribute('open', '');
}

/** @type {WeakMap<Element, string>} */
const latest = new WeakMap();

/** @param {Element} element */
function isBusy(element) {
  const focused = document.activeElement;
  return Boolean(focused && element.contains(focused) && focused.closest('details[open]') && focused.matches('input'));
}

/**
 * Bring a table's rows up to date.
 * @param {HTMLElement} body
 * @param {Record<string, string>} rows HTML by short id
 * @param {string[] | undefined} order All short ids that are shown, if that has changed
 */
export async function patchRows(body, rows, order) {
  for (const [id, html] of Object.entries(rows)) {
    const row = document.getElementById(`c-${id}`);
    if (row) await morph(row, html);
  }
  if (!order) return;
  const wanted = new Set(order.map((id) => `c-${id}`));
  for (const row of [...body.children]) {
    if (!wanted.has(row.id)) removeRow(row);
  }
  let next = body.firstElementChild;
  for (const id of order) {
    const row = document.getElementById(`c-${id}`) ?? makeRow(rows[id]);
    if (!row) continue;
    if (row === next) {
      next = next.nextElementSibling;
    } else if (row.isConnected && body.moveBefore) {
      body.moveBefore(row, next);
    } else {
      body.insertBefore(row, next);
      window.htmx?.process(row);
    }
  }
}

/** @param {Element} row */
function removeRow(row) {
  if (row.contains(document.activeElement)) document.getElementById('main')?.focus();
  row.remove();
}

/** @param {string | undefined} html */
function makeRow(html) {
  if (!html) return null;
  const template = document.createElement('template');
  template.innerHTML = html;
  return template.content.firstElementChild;
}

/** Say something to screen readers, not more often than it changes. @param {string} text */
export function announce(text) {
  const place = document.getElementById('announce');
  if (place && place.textContent !== text) place.textContent = text;
}
