// The status line: how fresh the page is, and the time in UTC.
import { announce } from './patch.js';

const STALE_MS = 5000;

/** @param {import('./live.js').LiveLine} live */
export function showStatus(live) {
  const place = document.querySelector('[data-link]');
  const clock = document.querySelector('[data-clock]');
  if (!(place instanceof HTMLElement)) return;
  const sprite = document.querySelector('use')?.getAttribute('href')?.split('#')[0] ?? '';
  place.replaceChildren(icon(sprite), document.createElement('span'));
  const use = place.querySelector('use');
  const text = place.lastElementChild;
  const show = () => {
    const [tone, symbol, words] = describe(live);
    place.className = `st st-${tone}`;
    use?.setAttribute('href', `${sprite}#${symbol}`);
    if (text && text.textContent !== words) text.textContent = words;
    if (clock) clock.textContent = `${new Date().toISOString().slice(11, 19)} UTC`;
    document.documentElement.toggleAttribute('data-offline', live.state === 'offline');
  };
  let wasOffline = false;
  live.addEventListener('state', () => {
    show();
    if (live.state === 'offline' && !wasOffline) announce('Connection lost, trying again');
    if (live.state === 'live' && wasOffline) announce('Connection is back');
    wasOffline = live.state === 'offline';
  });
  show();
  setInterval(show, 500);
}

/** @param {import('./live.js').LiveLine} live @returns {[string, string, string]} */
function describe(live) {
  const seconds = live.ageMs / 1000;
  if (live.state === 'live') {
    if (live.ageMs > STALE_MS) return ['warn', 'warn', `Stale, ${Math.round(seconds)} s old`];
    return ['run', 'run', `Live ${seconds.toFixed(1)} s`];
  }
  if (live.state === 'offline') {
    const left = Math.max(Math.ceil((live.retryAt - performance.now()) / 1000), 0);
    return ['bad', 'bad', left ? `Offline, retry in ${left} s` : 'Offline, trying now'];
  }
  return ['busy', 'busy', live.state === 'ended' ? 'Signed out' : 'Connecting'];
}

/** @param {string} sprite */
function icon(sprite) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'i');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `${sprite}#busy`);
  svg.append(use);
  return svg;
}
