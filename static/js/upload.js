// Uploads an image with its progress shown. The file streams from disk; nothing is read into memory.

export function watchUpload() {
  const form = document.querySelector('form[data-upload]');
  if (!(form instanceof HTMLFormElement)) return;
  form.addEventListener('submit', (event) => {
    const file = form.querySelector('input[type="file"]');
    if (!(file instanceof HTMLInputElement) || !file.files?.length) return;
    event.preventDefault();
    upload(form, file.files[0]);
  });
}

/** @param {HTMLFormElement} form @param {File} file */
function upload(form, file) {
  const bar = /** @type {HTMLProgressElement} */ (form.querySelector('[data-upload-bar]'));
  const text = /** @type {HTMLElement} */ (form.querySelector('[data-upload-text]'));
  const stop = /** @type {HTMLButtonElement} */ (form.querySelector('[data-upload-stop]'));
  const start = /** @type {HTMLButtonElement} */ (form.querySelector('.go'));
  const reference = /** @type {HTMLInputElement} */ (form.elements.namedItem('reference')).value.trim();
  const request = new XMLHttpRequest();
  const end = (words, isBad) => {
    bar.hidden = true;
    stop.hidden = true;
    start.disabled = false;
    text.textContent = words;
    text.classList.toggle('bad', isBad);
  };
  request.upload.addEventListener('progress', (event) => {
    if (!event.lengthComputable) return;
    bar.value = (event.loaded / event.total) * 100;
    text.textContent = `${mib(event.loaded)} of ${mib(event.total)} MiB`;
  });
  request.upload.addEventListener('load', () => {
    bar.removeAttribute('value');
    text.textContent = 'Received. Checking digests and converting layers…';
  });
  request.addEventListener('load', () => {
    const answer = parse(request.responseText);
    if (request.status === 200) {
      form.reset();
      end(answer.message, false);
    } else end(`${answer.message} ${answer.advice}`.trim(), true);
  });
  request.addEventListener('error', () => end('The connection broke. Nothing was imported; try again.', true));
  request.addEventListener('abort', () => end('Stopped. Nothing was imported.', false));
  stop.onclick = () => request.abort();
  bar.hidden = false;
  bar.value = 0;
  stop.hidden = false;
  start.disabled = true;
  text.classList.remove('bad');
  text.textContent = `0 of ${mib(file.size)} MiB`;
  const query = reference ? `?reference=${encodeURIComponent(reference)}` : '';
  request.open('PUT', form.dataset.upload + query);
  request.setRequestHeader('X-CSRF-Token', document.body.dataset.csrf ?? '');
  request.setRequestHeader('Content-Type', 'application/x-tar');
  request.send(file);
}

/** @param {number} bytes */
function mib(bytes) {
  return (bytes / 1048576).toFixed(bytes < 10485760 ? 1 : 0);
}

/** @param {string} text @returns {{message: string, advice: string}} */
function parse(text) {
  try {
    const answer = JSON.parse(text);
    return { message: String(answer.message ?? 'The import failed.'), advice: String(answer.advice ?? '') };
  } catch {
    return { message: 'The engine gave no answer that makes sense.', advice: 'Look at its log.' };
  }
}
