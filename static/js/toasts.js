// Messages in the corner: good ones go by themselves, bad ones stay until they are dismissed.

const STAY_MS = 8000;
const MOST = 5;

export function watchToasts() {
  const place = document.getElementById('toasts');
  if (!place) return;
  document.addEventListener('click', (event) => {
    if (event.target instanceof Element) event.target.closest('[data-dismiss]')?.closest('.toast')?.remove();
  });
  document.addEventListener('htmx:error', () => {
    toast('bad', 'The engine gave no answer.', 'Look at the state shown: what was asked for may have happened all the same.');
  });
  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) {
        if (node instanceof HTMLElement && node.dataset.toast === 'ok') setTimeout(() => node.remove(), STAY_MS);
      }
    }
    while (place.childElementCount > MOST) place.firstElementChild?.remove();
  }).observe(place, { childList: true });
}

/**
 * Show a message that came from a script and not from the server.
 * @param {'ok' | 'warn' | 'bad'} tone
 * @param {string} text
 * @param {string} [advice]
 */
export function toast(tone, text, advice = '') {
  const box = document.createElement('div');
  box.className = 'toast';
  box.dataset.toast = tone;
  const words = document.createElement('span');
  const strong = document.createElement('span');
  strong.className = `b ${tone === 'ok' ? 'run' : tone}`;
  strong.textContent = text;
  words.append(strong, advice ? ` ${advice}` : '');
  const close = document.createElement('button');
  close.className = 'btn flat push';
  close.type = 'button';
  close.dataset.dismiss = '';
  close.textContent = 'Dismiss';
  box.append(words, close);
  document.getElementById('toasts')?.append(box);
}
