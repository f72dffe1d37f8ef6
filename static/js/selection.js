// Ticked rows and the bar that acts on them.

const rowTicks = () => /** @type {HTMLInputElement[]} */ ([...document.querySelectorAll('[data-rows] input[name="id"]')]);

export function watchSelection() {
  countSelection();
  document.addEventListener('change', (event) => {
    if (!(event.target instanceof HTMLInputElement)) return;
    if (event.target.matches('[data-select-all]')) {
      for (const tick of rowTicks()) tick.checked = event.target.checked;
    }
    if (event.target.closest('[data-selection]')) countSelection();
  });
  document.addEventListener('reset', () => setTimeout(countSelection));
  document.addEventListener('htmx:after:swap', countSelection);
  document.addEventListener('slipway:changed', clear);
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !document.querySelector('dialog[open]')) clear();
  });
}

function clear() {
  for (const tick of rowTicks()) tick.checked = false;
  countSelection();
}

/** Show the bar with the number of ticked rows, or hide it. */
export function countSelection() {
  const bar = document.querySelector('[data-bulk]');
  if (!(bar instanceof HTMLElement)) return;
  const ticks = rowTicks();
  const chosen = ticks.filter((tick) => tick.checked).length;
  bar.hidden = chosen === 0;
  const count = bar.querySelector('[data-count]');
  if (count) count.textContent = `${chosen} selected`;
  const all = document.querySelector('[data-select-all]');
  if (all instanceof HTMLInputElement) {
    all.checked = chosen > 0 && chosen === ticks.length;
    all.indeterminate = chosen > 0 && chosen < ticks.length;
  }
}
