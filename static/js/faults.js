// After a form came back with faults, the keyboard stands at the list of them.

export function watchFaults() {
  focusFaults();
  document.addEventListener('htmx:after:swap', focusFaults);
  document.addEventListener('click', (event) => {
    if (!(event.target instanceof Element)) return;
    const link = event.target.closest('#faults a[href^="#"]');
    const field = link && document.getElementById(link.getAttribute('href').slice(1));
    if (!field) return;
    event.preventDefault();
    field.closest('details')?.setAttribute('open', '');
    field.focus();
  });
}

let shown = null;

function focusFaults() {
  const faults = document.getElementById('faults');
  const text = faults?.textContent ?? null;
  // The preview is swapped as well, while somebody types: only a new answer takes the focus.
  if (faults && text !== shown) faults.focus();
  shown = text;
}
