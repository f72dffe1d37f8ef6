// The tab's one websocket: topics, reconnecting with back-off, and the age of what is seen.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const JITTER = 0.3;
const SILENCE_LIMIT_MS = 12_000;
const SIGNED_OUT = 4401;

/**
 * @typedef {Record<string, any>} Message
 * @typedef {object} Subscription
 * @property {() => Message} params What to ask with; asked anew at each connection, to resume.
 * @property {(message: Message) => void} receive
 */

export class LiveLine extends EventTarget {
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, Subscription>} */
  #topics = new Map();
  #attempts = 0;
  #timer = 0;
  #heardAt = 0;
  #isLeaving = false;
  /** @type {'connecting' | 'live' | 'offline' | 'ended'} */
  state = 'connecting';
  /** When the next attempt is due, in milliseconds of performance.now(). */
  retryAt = 0;

  /** @param {string} url */
  constructor(url) {
    super();
    this.url = url;
    addEventListener('online', () => this.#retryNow());
    document.addEventListener('submit', (event) => {
      // The server closes the line of a session that ends; this tab is on its way already.
      const form = event.target;
      this.#isLeaving = form instanceof HTMLFormElement && form.action.endsWith('/sign-out');
    });
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#retryNow();
    });
    setInterval(() => this.#checkSilence(), 2000);
  }

  /** Milliseconds since the server's last word. */
  get ageMs() {
    return performance.now() - this.#heardAt;
  }

  /**
   * Take part in a topic for as long as the page lives, or until `unsubscribe`.
   * @param {string} topic
   * @param {Subscription} subscription
   */
  subscribe(topic, subscription) {
    this.#topics.set(topic, subscription);
    if (this.state === 'live') this.#send({ op: 'sub', topic, ...subscription.params() });
  }

  /** @param {string} topic */
  unsubscribe(topic) {
    if (this.#topics.delete(topic) && this.state === 'live') this.#send({ op: 'unsub', topic });
  }

  /** Ask a topic again with its present parameters. @param {string} topic */
  renew(topic) {
    const subscription = this.#topics.get(topic);
    if (subscription && this.state === 'live') this.#send({ op: 'sub', topic, ...subscription.params() });
  }

  connect() {
    clearTimeout(this.#timer);
    this.#socket?.close();
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.addEventListener('open', () => {
      this.#heardAt = performance.now();
      this.#attempts = 0;
      this.#become('live');
      for (const [topic, subscription] of this.#topics) {
        this.#send({ op: 'sub', topic, ...subscription.params() });
      }
    });
    socket.addEventListener('message', (event) => this.#receive(event.data));
    socket.addEventListener('close', (event) => {
      if (socket === this.#socket) this.#closed(event.code);
    });
  }

  /** @param {string} text */
  #receive(text) {
    this.#heardAt = performance.now();
    const message = JSON.parse(text);
    if (message.topic) this.#topics.get(message.topic)?.receive(message);
  }

  /** @param {number} code */
  #closed(code) {
    this.#socket = null;
    if (code === SIGNED_OUT) {
      this.#become('ended');
      if (this.#isLeaving) return;
      location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
      return;
    }
    const delay = Math.min(FIRST_DELAY_MS * 2 ** this.#attempts, LONGEST_DELAY_MS);
    const jittered = delay * (1 + JITTER * (Math.random() * 2 - 1));
    this.#attempts += 1;
    this.retryAt = performance.now() + jittered;
    this.#timer = setTimeout(() => this.connect(), jittered);
    this.#become('offline');
  }

  #retryNow() {
    if (this.state === 'offline') this.connect();
  }

  #checkSilence() {
    // A line that died without a close frame (sleep, a lost route) is silent, not closed.
    if (this.state === 'live' && this.ageMs > SILENCE_LIMIT_MS) this.#socket?.close();
  }

  /** @param {Message} message */
  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** @param {LiveLine['state']} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event('state'));
  }
}
