// Theme and row height at once, while the server remembers them.

export function watchLook() {
  document.addEventListener('submit', (event) => {
    const form = event.target;
    const button = event.submitter;
    if (!(form instanceof HTMLFormElement) || !form.matches('[data-look]') || !(button instanceof HTMLButtonElement)) return;
    event.preventDefault();
    const body = new URLSearchParams(/** @type {any} */ (new FormData(form, button)));
    if (button.name === 'theme') showTheme(button);
    else showDensity(form, button);
    fetch(form.action, { method: 'POST', body, redirect: 'manual' }).catch(() => {});
  });
}

const NEXT_THEME = { system: 'dark', dark: 'light', light: 'system' };

/** @param {HTMLButtonElement} button */
function showTheme(button) {
  const theme = /** @type {keyof typeof NEXT_THEME} */ (button.value);
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.value = NEXT_THEME[theme];
  button.setAttribute('aria-label', `Theme: ${theme}. Change it`);
}

/** @param {HTMLFormElement} form @param {HTMLButtonElement} button */
function showDensity(form, button) {
  if (button.value === 'default') delete document.documentElement.dataset.density;
  else document.documentElement.dataset.density = button.value;
  for (const one of form.querySelectorAll('button')) one.setAttribute('aria-pressed', String(one === button));
}
