/* The service's live connection (docs/protocol.md): moves out, frames in, the newest wins.

It connects again by itself, with growing pauses, and goes on where it was: what was held is grabbed
again and the last move sent again. This module knows neither the page nor a canvas. */

const PAUSES_MS = [200, 500, 1000, 2000, 4000];
const KINDS = ["warped", "model", "refined"];
const TYPES = ["image/jpeg", "image/webp", "image/png"];
const FULL_BYTES = 1 << 16;

/** What a binary message holds, or null where it is none of version 1. */
export function frameOf(buffer) {
  const view = new DataView(buffer);
  const ours = buffer.byteLength > 16 && view.getUint16(0) === 0x444e && view.getUint8(2) === 1;
  if (!ours) return null;
  return {
    kind: KINDS[view.getUint8(3)] ?? "model",
    seq: view.getUint32(8, true),
    ms: view.getFloat32(12, true),
    blob: new Blob([new Uint8Array(buffer, 16)], { type: TYPES[view.getUint8(4)] }),
  };
}

/**
 * Events, with what they bring in `detail`:
 *   status    "open", "lost" (it tries again), "taken" (by another connection), "gone" (no session)
 *   frame     {kind, seq, ms, blob, bitmap, targets}
 *   state, result, progress, error: the service's messages
 */
export class Live extends EventTarget {
  #url;
  #exists;
  #socket = null;
  #tries = 0;
  #timer = 0;
  #held = null; // the grab, while something is held
  #last = null; // the last move
  #waits = false; // it was not sent
  #releasing = null; // the release, until it is answered
  #version = 0; // of the session, at the release
  #cancels = 0; // that are not answered yet
  #moves = new Map(); // targets by seq, until they are answered
  #seq = 0;
  #since = 0; // frames up to this one are of an earlier grab
  #shown = 0;
  #closed = false;

  /** exists: () => Promise<boolean>, whether the session is there (asked after a failed connection). */
  constructor(url, exists = async () => true) {
    super();
    this.#url = url;
    this.#exists = exists;
    this.again = () => { if (!this.#socket) this.connect(); };
    globalThis.addEventListener?.("online", this.again);
    this.connect();
  }

  get holds() { return this.#held !== null; }

  get open() { return this.#socket?.readyState === WebSocket.OPEN; }

  connect() {
    clearTimeout(this.#timer);
    if (this.#closed || this.#socket) return;
    const socket = this.#socket = new WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#came(data);
    socket.onclose = ({ code }) => { if (this.#socket === socket) this.#ended(code); };
  }

  /** Go on after `ready`: what is held is grabbed again, unless the service finished it meanwhile. */
  #ready(state) {
    this.#tries = this.#cancels = 0;
    this.#tell("status", "open");
    if (this.#releasing && state.version !== this.#version) this.#let();
    this.#tell("state", state);
    if (!this.#held) return;
    this.#send(this.#held);
    if (this.#last) this.#send(this.#last);
    if (this.#releasing) this.#send(this.#releasing);
  }

  async #ended(code) {
    this.#socket = null;
    if (this.#closed) return;
    if (code === 4409) return this.#tell("status", "taken");
    this.#tell("status", "lost");
    const there = await this.#exists().catch(() => true); // no answer: the service is away
    if (!there) return this.#tell("status", "gone");
    const pause = PAUSES_MS[Math.min(this.#tries++, PAUSES_MS.length - 1)];
    this.#timer = setTimeout(() => this.connect(), pause * (0.8 + 0.4 * Math.random()));
  }

  #came(data) {
    if (typeof data !== "string") return this.#frame(frameOf(data));
    const message = JSON.parse(data);
    if (message.type === "ready") return this.#ready(message.state);
    const state = message.type === "state";
    if (state && this.#cancels) this.#cancels -= 1;
    else if (this.#releasing && (state || message.type === "error")) this.#let();
    return this.#tell(message.type, state ? message.state : message);
  }

  async #frame(frame) {
    const mine = frame && frame.seq > this.#since && frame.seq >= this.#shown;
    if (!mine) return;
    const targets = this.#moves.get(frame.seq) ?? this.#last?.targets;
    for (const seq of this.#moves.keys()) if (seq < frame.seq) this.#moves.delete(seq);
    const bitmap = await createImageBitmap(frame.blob).catch(() => null); // not in this thread
    if (!bitmap || frame.seq < this.#shown || frame.seq <= this.#since) return;
    this.#shown = frame.seq;
    this.#tell("frame", { ...frame, bitmap, targets });
  }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  #send(message) { if (this.open) this.#socket.send(JSON.stringify(message)); }

  #let() { this.#held = this.#last = this.#releasing = null; }

  grab(handles, options = {}) {
    this.#let();
    this.#since = this.#seq; // frames on their way are of no use any more
    this.#moves.clear();
    this.#held = { type: "grab", handles, ...options };
    this.#send(this.#held);
  }

  /** Send the pointer on. Where the line is full it waits for the next move: none queues. */
  move(targets) {
    if (!this.#held || this.#releasing) return;
    this.#last = { type: "move", seq: ++this.#seq, targets };
    this.#moves.set(this.#seq, targets);
    this.#waits = !this.open || this.#socket.bufferedAmount > FULL_BYTES;
    if (!this.#waits) this.#send(this.#last);
  }

  /** Let go, and have it refined: now, or once there is a connection again. */
  release(preset, version) {
    if (!this.#last) return this.cancel();
    if (this.#waits) this.#send(this.#last);
    this.#version = version;
    this.#releasing = { type: "release", preset };
    this.#send(this.#releasing);
  }

  cancel() {
    if (this.#held && this.open) {
      this.#cancels += 1;
      this.#send({ type: "cancel" });
    }
    this.#let();
    this.#since = this.#seq;
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    globalThis.removeEventListener?.("online", this.again);
    this.#socket?.close();
  }
}
