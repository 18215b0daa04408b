// The connection to the feed: sends hello with the last change that was seen, passes messages on, and reconnects.

const FIRST_WAIT = 250;
const LONGEST_WAIT = 10_000;
const PING_EVERY = 15_000;
const SILENCE = 40_000;

/**
 * A WebSocket to the server's feed that reconnects by itself.
 *
 * @param {object} given
 * @param {string} given.url
 * @param {() => {run: string|null, last: number|null}} given.seen Returns the change after which to resume.
 * @param {(message: object) => void} given.onMessage
 * @param {(state: {name: "connecting"|"open"|"lost", retryAt: number|null, attempt: number}) => void} given.onState
 * @param {{socket: WebSocket, messages: object[]}} [given.early] A socket that was opened before. It sends a hello that
 *   asks for a snapshot. `messages` are the events that it has received.
 * @param {object} [given.world] Provides WebSocket, timers and clock; tests replace it.
 */
export class FeedConnection {
  constructor({ url, seen, onMessage, onState, early = null, world = globalThis }) {
    this.early = early;
    this.url = url;
    this.seen = seen;
    this.onMessage = onMessage;
    this.onState = onState;
    this.world = world;
    this.socket = null;
    this.attempt = 0;
    this.wanted = { logs: false, usage: false };
    this.timer = null;
    this.pinger = null;
    this.heard = 0;
    this.answersPings = false;
  }

  open() {
    this.world.clearTimeout(this.timer);
    this.timer = null;
    this.onState({ name: "connecting", retryAt: null, attempt: this.attempt });
    const early = this.early?.socket.readyState <= 1 ? this.early : null;
    this.early = null;
    const socket = (this.socket = early?.socket ?? new this.world.WebSocket(this.url));
    socket.onopen = () => {
      this.send({ type: "hello", ...(early ? { run: null, last: null } : this.seen()) });
      this.opened();
    };
    socket.onmessage = (event) => this.received(socket, event);
    socket.onclose = () => {
      if (socket === this.socket) this.lost();
    };
    if (early?.socket.readyState === 1) this.opened();
    for (const event of early?.messages ?? []) this.received(socket, event);
  }

  opened() {
    this.heard = this.world.Date.now();
    if (this.wanted.logs || this.wanted.usage) this.send({ type: "follow", ...this.wanted });
    this.pinger = this.world.setInterval(() => this.ping(), PING_EVERY);
  }

  received(socket, event) {
    if (socket !== this.socket) return;
    this.heard = this.world.Date.now();
    const message = JSON.parse(event.data);
    if (message.type === "pong") this.answersPings = true;
    if (message.type === "snapshot" || message.type === "resumed") this.attempt = 0;
    this.onMessage(message);
    if (message.type === "snapshot" || message.type === "resumed")
      this.onState({ name: "open", retryAt: null, attempt: 0 });
  }

  lost() {
    this.world.clearInterval(this.pinger);
    this.socket = null;
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.attempt);
    // Jitter: a hundred pages of one server must not reconnect at the same moment.
    const wait = longest * (0.5 + this.world.Math.random() / 2);
    this.attempt += 1;
    this.onState({ name: "lost", retryAt: this.world.Date.now() + wait, attempt: this.attempt });
    this.timer = this.world.setTimeout(() => this.open(), wait);
  }

  /** Reconnect at once if it is waiting to reconnect. */
  retry() {
    if (this.socket === null) this.open();
  }

  ping() {
    if (this.answersPings && this.world.Date.now() - this.heard > SILENCE) {
      const socket = this.socket;
      this.lost();
      socket.close();
      return;
    }
    this.send({ type: "ping" });
  }

  /** Follow logs (true, false, or names of works) and usage. The request is sent again after each reconnect. */
  follow(wanted) {
    this.wanted = wanted;
    this.send({ type: "follow", ...wanted });
  }

  send(message) {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(message));
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    this.world.clearTimeout(this.timer);
    this.world.clearInterval(this.pinger);
    socket?.close();
  }
}
