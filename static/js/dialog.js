// The page's one dialog: htmx fills it, this opens and closes it, and arms its button.

export function watchDialog() {
  const dialog = document.getElementById('dialog');
  arm(document);
  document.addEventListener('input', (event) => {
    if (event.target instanceof HTMLInputElement && event.target.dataset.mustEqual) armInput(event.target);
  });
  if (!(dialog instanceof HTMLDialogElement)) return;
  new MutationObserver(() => {
    if (!dialog.childElementCount) return;
    arm(dialog);
    if (!dialog.open) dialog.showModal();
    const first = dialog.querySelector('[autofocus], .dlg-end [data-close]');
    if (first instanceof HTMLElement) first.focus();
  }).observe(dialog, { childList: true });
  dialog.addEventListener('close', () => dialog.replaceChildren());
  dialog.addEventListener('click', (event) => {
    if (!(event.target instanceof Element)) return;
    if (event.target === dialog || event.target.closest('[data-close]')) {
      event.preventDefault();
      dialog.close();
    }
  });
  document.addEventListener('slipway:close-dialog', () => dialog.close());
}

/** @param {ParentNode} root */
function arm(root) {
  for (const input of root.querySelectorAll('input[data-must-equal]')) armInput(/** @type {HTMLInputElement} */ (input));
}

/** @param {HTMLInputElement} input */
function armInput(input) {
  const button = input.closest('form')?.querySelector('[data-armed]');
  if (button instanceof HTMLButtonElement) button.disabled = input.value !== input.dataset.mustEqual;
}
