// Which topics a page needs: read from its data-topic attributes.
import { announce, morph, patchRows, patchShapes, patchTexts } from './patch.js';
import { BootConsole } from './console.js';
import { LogPanel } from './log/panel.js';
import { countSelection } from './selection.js';
import { toast } from './toasts.js';

/** @typedef {import('./live.js').LiveLine} LiveLine */

/** @param {LiveLine} live */
export function subscribePage(live) {
  live.subscribe('shell', {
    params: () => ({}),
    receive: (message) => {
      apply(message);
      // Between the page that teaches and the table there is more than rows to change.
      const count = message.text?.['count-containers'];
      const isEmpty = Boolean(document.querySelector('[data-first]'));
      const isList = Boolean(document.querySelector('[data-selection]'));
      if ((isEmpty && count && count !== '0') || (isList && count === '0')) location.reload();
    },
  });
  const subscribed = new Set();
  const scan = () => {
    for (const element of document.querySelectorAll('[data-topic]')) {
      const topic = element.dataset.topic;
      if (topic && !subscribed.has(topic)) {
        subscribed.add(topic);
        subscribeElement(live, element, topic);
      }
    }
  };
  scan();
  document.addEventListener('htmx:after:swap', () => {
    scan();
    if (document.querySelector('[data-topic="containers"]')) renewIfChanged(live);
  });
  document.addEventListener('slipway:changed', () => {
    // The line brings the news; without it the page is read again.
    if (live.state !== 'live') location.reload();
  });
  const log = document.querySelector('[data-log]');
  if (log instanceof HTMLElement) new LogPanel(log, live);
  const console = document.querySelector('[data-console]');
  if (console instanceof HTMLElement) new BootConsole(console, live);
}

/** @param {LiveLine} live @param {HTMLElement} element @param {string} topic */
function subscribeElement(live, element, topic) {
  if (topic === 'containers') subscribeList(live);
  else if (topic.startsWith('container:')) live.subscribe(topic, { params: () => ({}), receive: showContainer });
  else if (topic === 'events') subscribeEvents(live, element);
  else if (element.dataset.refresh) subscribeRefresh(live, element, topic);
}

/** Texts and shapes, which any topic may carry. @param {Record<string, any>} message */
function apply(message) {
  if (message.text) patchTexts(message.text);
  if (message.shape) patchShapes(message.shape);
  if (message.error) toast('warn', message.error);
}

let listQuery = '';

/** @param {LiveLine} live */
function subscribeList(live) {
  live.subscribe('containers', {
    params: () => {
      listQuery = document.querySelector('[data-topic="containers"]')?.dataset.query ?? '';
      return { query: listQuery };
    },
    receive: async (message) => {
      const body = document.querySelector('[data-rows]');
      if (body && (message.rows || message.order)) {
        await patchRows(body, message.rows ?? {}, message.order);
        const empty = document.querySelector('[data-no-rows]');
        if (empty) empty.hidden = body.childElementCount > 0;
        countSelection();
      }
      apply(message);
    },
  });
}

/** A new filter or sort has been swapped in: the live rows must follow it. @param {LiveLine} live */
function renewIfChanged(live) {
  const query = document.querySelector('[data-topic="containers"]')?.dataset.query ?? '';
  if (query !== listQuery) live.renew('containers');
}

let lastState = '';

/** @param {Record<string, any>} message */
async function showContainer(message) {
  apply(message);
  for (const [id, html] of Object.entries(message.html ?? {})) {
    const element = document.getElementById(id);
    if (element) await morph(element, html);
  }
  if (message.state && message.state !== lastState) {
    if (lastState) announce(`The container is ${message.state}`);
    lastState = message.state;
  }
  if (message.gone) {
    for (const button of document.querySelectorAll('#ct-head button')) button.disabled = true;
    toast('warn', 'This container has been removed.', 'Its log is shown as it was.');
    announce('The container has been removed');
  }
}

/** @param {LiveLine} live @param {HTMLElement} element */
function subscribeEvents(live, element) {
  let after = Number(element.dataset.after) || 0;
  live.subscribe('events', {
    params: () => ({ after }),
    receive: (message) => {
      apply(message);
      if (!message.event) return;
      after = Math.max(after, message.id);
      const template = document.createElement('template');
      template.innerHTML = message.event;
      element.prepend(template.content);
      while (element.childElementCount > 500) element.lastElementChild?.remove();
    },
  });
}

/** Pages without rows of their own read themselves again when told to. @param {LiveLine} live @param {HTMLElement} element @param {string} topic */
function subscribeRefresh(live, element, topic) {
  let isReading = false;
  const selector = `#${element.id}`;
  live.subscribe(topic, {
    params: () => ({}),
    receive: async (message) => {
      if (message.error) apply(message);
      if (!message.refresh || isReading || document.hidden || !window.htmx) return;
      isReading = true;
      try {
        await window.htmx.ajax('GET', location.pathname + location.search, {
          target: selector,
          select: selector,
          swap: 'outerMorph',
        });
      } finally {
        isReading = false;
      }
    },
  });
}
