// The boot console: text that grows while the guest boots.

const KEPT_CHARACTERS = 262_144;

export class BootConsole {
  /** @param {HTMLElement} place @param {import('./live.js').LiveLine} live */
  constructor(place, live) {
    this.place = place;
    place.scrollTop = place.scrollHeight;
    live.subscribe(`console:${place.dataset.console}`, {
      params: () => ({}),
      receive: (message) => this.receive(message),
    });
  }

  /** @param {Record<string, any>} message */
  receive(message) {
    const isAtEnd = this.place.scrollTop + this.place.clientHeight >= this.place.scrollHeight - 24;
    if (typeof message.reset === 'string') this.text = message.reset;
    else if (typeof message.append === 'string') this.text += message.append;
    else return;
    this.text = this.text.slice(-KEPT_CHARACTERS);
    // Colours of the kernel's console carry no meaning here; the sequences would only be noise.
    this.place.textContent = this.text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, '') || 'The guest has written nothing yet.';
    if (isAtEnd) this.place.scrollTop = this.place.scrollHeight;
  }

  text = '';
}
