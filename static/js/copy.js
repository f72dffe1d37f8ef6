// Copies a text of the page; the buttons appear only where that works.

export function watchCopy() {
  for (const button of document.querySelectorAll('[data-copy]')) button.removeAttribute('hidden');
  document.addEventListener('click', async (event) => {
    if (!(event.target instanceof Element)) return;
    const button = event.target.closest('[data-copy]');
    if (!(button instanceof HTMLElement)) return;
    const source = document.querySelector(button.dataset.copy ?? '');
    if (!source) return;
    const isDone = await copy(source);
    const before = button.lastChild?.textContent ?? '';
    if (button.lastChild) button.lastChild.textContent = isDone ? 'Copied' : 'Press Ctrl+C';
    setTimeout(() => {
      if (button.lastChild) button.lastChild.textContent = before;
    }, 2000);
  });
}

/** @param {Element} source @returns {Promise<boolean>} */
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent ?? '');
    return true;
  } catch {
    // Without TLS on another address than loopback there is no clipboard: select it for the operator.
    getSelection()?.selectAllChildren(source);
    return false;
  }
}
