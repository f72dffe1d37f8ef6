// After a form came back with faults, the keyboard stands at the list of them.

export function watchFaults() {
  focusFaults();
  document.addEventListener('htmx:after:swap', (event) => {
    // The preview is swapped as well, while somebody types: only an answer to the form takes the focus.
    if (event.target instanceof HTMLFormElement) focusFaults();
  });
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

function focusFaults() {
  document.getElementById('faults')?.focus();
}
