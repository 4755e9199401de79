/* The studio's canvas and its tools in an element of another program: a notebook's cell, an app.

    const board = new Board(element, ask, { height: 440, opens: false });
    await board.look();

ask: (asked, picture) => Promise<{ picture, error, ...}>, pictures as Blobs: what engine/hosts/desk.py
answers. One move at a time is asked for, the newest, so nothing queues, however slow the line is.
The markup and the style are the page's own (index.html, style.css), in a shadow root. Events:

    opened                     somebody chose a picture, and it is seen (with `opens`)
    grab, move {drags}         what the pointer does, as (hx, hy, tx, ty)
    release  {drags}           it let go: `refine` asks for the drag, or the host does it by itself
    painted  {layer}
    changed  {stepped}         another picture is seen; stepped: by undo or redo                   */

import { DragCanvas } from "./drag-canvas.js";
import { dress, made, Work } from "./ui.js";

const LAYERS = ["mask", "grip"];
const MOST_PX = 4e6; // of a picture that is opened: larger ones are made smaller
const OWN_STYLE = `
:host { display: block; color: var(--ink); text-align: left; }
#board { display: flex; flex-direction: column; border: 1px solid var(--line); border-radius: 12px; overflow: hidden; background: var(--paper); }
#stage { flex: 1; }
#board:not([data-tool="pairs"]) [data-act="apply"] { display: none; }
header [data-act="apply"] { height: 32px; }
#toasts { position: absolute; top: 12px; z-index: 4; }
#welcome h1 { font-size: 22px; }
`;

let page = null; // the studio's, to take parts of
let style = "";

const bitmapOf = (blob) => createImageBitmap(blob);
const keysOf = { Delete: "clear", Backspace: "clear", Enter: "apply", x: "erase", b: "box", i: "invert", s: "split", 0: "fit" };
const toolOf = { v: "drag", p: "pairs", m: "mask", g: "grip", h: "pan" };
const nudgeOf = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Board extends EventTarget {
  state = {}; // the desk's
  #ask;
  #root;
  #work;
  #seen = null; // the picture's file, to open again where the host has forgotten it
  #stored = Promise.resolve(); // what must be there before a grab: mask and grip
  #grabs = 0;
  #next = null; // the targets that are to be asked for
  #asking = false;
  #busy = false;

  /** Give all boards the page's markup and style, as text. */
  static dress(html, css) {
    page = html;
    style = css.replaceAll(":root.dark", ":host(.dark)").replaceAll(":root", ":host") + OWN_STYLE;
  }

  constructor(element, ask, { height = 440, opens = false, drags = true } = {}) {
    super();
    this.#ask = ask;
    this.#root = element.shadowRoot ?? element.attachShadow({ mode: "open" });
    element.dataset.lmSuppressShortcuts = "true"; // JupyterLab's, while the canvas has the focus
    this.#furnish(height, opens, drags);
    this.#work = new Work(this.#root);
    this.canvas = new DragCanvas(this.#at("canvas"));
    this.#listen();
    this.#wire();
    this.#themed(element);
    this.tool("drag");
    this.#show();
  }

  #at(id) { return this.#root.getElementById(id); }

  #button(act) { return this.#root.querySelector(`[data-act="${act}"]`); }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  get drags() { return this.canvas.pairs.map(({ handle, target }) => [...handle, ...target]); }

  #furnish(height, opens, drags) {
    const studio = new DOMParser().parseFromString(page, "text/html");
    const take = (selector) => studio.querySelector(selector);
    const [header, stage, apply, file] = ["header", "#stage", '[data-act="apply"]', "#file"].map(take);
    header.append(apply);
    const gone = ["strong", "#save", "#more", "#try", "#samples", ...opens ? [] : ['[data-act="open"]', "#welcome", "header i"],
      ...drags ? [] : ['[data-act="undo"]', '[data-act="redo"]']];
    for (const each of gone) (header.querySelector(each.replace("header ", "")) ?? stage.querySelector(each))?.remove();
    const board = made("div", { id: "board" }, header, stage, made("div", { id: "toasts", role: "alert" }), file);
    Object.assign(board.style, { height: `${height}px`, position: "relative" });
    this.#root.replaceChildren(made("style", { textContent: style }), board);
    stage.querySelector("#tools").hidden = opens;
    if (opens) stage.querySelector("#welcome").hidden = false;
    dress(this.#root);
  }

  /** Be dark where what lies behind is. */
  #themed(element) {
    const dark = () => {
      for (let each = element; each; each = each.parentElement) {
        const [r, g, b, a = 1] = getComputedStyle(each).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [];
        if (a > 0.5 && r !== undefined) return 0.3 * r + 0.6 * g + 0.1 * b < 128;
      }
      return false;
    };
    const set = () => {
      element.classList.toggle("dark", dark());
      element.style.colorScheme = element.classList.contains("dark") ? "dark" : "light";
      this.canvas.themed();
    };
    set();
    requestAnimationFrame(set); // it may not hang in the document yet
    this.#watching = new MutationObserver(() => requestAnimationFrame(set));
    for (const each of [document.body, document.documentElement]) this.#watching.observe(each, { attributes: true });
  }

  #watching = null;

  close() { this.#watching.disconnect(); }

  say(text) {
    const line = made("p", { className: "bad" }, made("span", { textContent: text }));
    line.append(made("button", { textContent: "\u00d7", ariaLabel: "Close", onclick: () => line.remove() }));
    this.#at("toasts").replaceChildren(line);
  }

  // Asking.

  /** Ask; what is refused is an error. A desk that is gone is begun anew with what is seen. */
  async ask(asked, picture = null) {
    let answer = await this.#ask(asked, picture);
    if (answer.gone && this.#seen) {
      await this.#ask({ do: "open" }, this.#seen);
      await Promise.all(LAYERS.map((layer) => this.#store(layer)));
      answer = await this.#ask(asked, picture);
    }
    if (answer.error) throw new Error(answer.error);
    if (answer.version) this.state = answer;
    return answer;
  }

  async #try(call) {
    try {
      return await call();
    } catch (error) {
      this.say(error.message);
      return null;
    }
  }

  /** Show what the desk has. */
  async look() {
    await this.#try(async () => {
      const { picture } = await this.ask({ do: "seen" });
      await this.#present(picture);
      if (this.state.can_undo) {
        this.canvas.compareWith(await bitmapOf((await this.ask({ do: "before" })).picture));
      }
      for (const layer of LAYERS) {
        const { picture: painted } = await this.ask({ do: "layer", layer });
        if (painted) this.#quietly(layer, await bitmapOf(painted));
      }
    });
    this.#show();
  }

  /** Show a picture, and begin a desk with it. */
  async open(blob) {
    await this.#try(async () => {
      const fitting = await fitted(blob);
      await this.#present(fitting);
      await this.ask({ do: "open" }, fitting);
    });
    this.#show();
  }

  async #present(blob) {
    await this.canvas.open(await bitmapOf(blob));
    this.#seen = blob;
    this.#at("tools").hidden = false;
    if (this.#at("welcome")) this.#at("welcome").hidden = true;
  }

  /** Show what a drag, an undo or a redo has made. */
  async #become({ picture, kind }, stepped = false) {
    this.#seen = picture;
    await this.canvas.show(await bitmapOf(picture), kind);
    this.canvas.done();
    this.#tell("changed", { stepped });
  }

  /** Show what the host has made of the picture meanwhile. */
  async renew(version) {
    if (version === this.state.version) return;
    await this.#try(async () => this.#become(await this.ask({ do: "seen" })));
    this.#show();
  }

  /** Ask for the drag, and show it. */
  async refine(drags, preset) {
    await this.#long("Refining…", { do: "release", drags, preset });
  }

  async #long(text, asked) {
    this.#busy = true;
    this.canvas.enabled = false;
    if (text) this.#work.start(text, true);
    this.#show();
    const done = await this.#try(async () => {
      const answer = await this.ask(asked);
      if (answer.picture) await this.#become(answer, !text);
      return answer.picture;
    });
    this.#work.end();
    this.#busy = false;
    this.canvas.enabled = true;
    if (!done) this.canvas.cancel();
    this.#show();
  }

  progress(about) { if (this.#busy) this.#work.progress(about); }

  // The pointer.

  #listen() {
    const { canvas } = this;
    const on = (type, call) => canvas.addEventListener(type, ({ detail }) => call(detail));
    on("grab", ({ handles }) => this.#grab(handles));
    on("move", ({ targets }) => {
      this.#tell("move", { drags: this.drags });
      this.#next = targets;
      this.#follow();
    });
    on("release", () => {
      this.#next = null;
      this.#tell("release", { drags: this.drags });
    });
    on("cancel", () => this.#drop());
    on("pairs", () => this.#show());
    on("painted", ({ layer }) => this.#painted(layer));
    on("drawn", ({ kind }) => { this.#at("badge").dataset.kind = this.#at("badge").textContent = kind ?? ""; });
  }

  async #grab(handles) {
    const mine = ++this.#grabs;
    this.#next = null;
    this.#tell("grab", { drags: this.drags });
    if (!this.#button("undo")) return; // no model: what is seen is the browser's
    this.#asking = true;
    await this.#stored;
    const held = mine === this.#grabs && await this.#try(() => this.ask({ do: "grab", handles }));
    if (mine !== this.#grabs) return;
    this.#asking = false;
    if (held) this.#follow();
  }

  /** Ask for the newest targets' frame, until there are no newer ones. */
  async #follow() {
    const mine = this.#grabs;
    if (this.#asking || !this.#button("undo")) return;
    this.#asking = true;
    while (this.#next && mine === this.#grabs) {
      const targets = this.#next;
      this.#next = null;
      const answer = await this.#try(() => this.ask({ do: "move", targets }));
      const bitmap = answer?.picture && await bitmapOf(answer.picture);
      if (bitmap && mine === this.#grabs && this.canvas.held) this.canvas.frame(bitmap, { kind: "model", targets });
    }
    if (mine === this.#grabs) this.#asking = false;
  }

  #drop() {
    this.#grabs += 1;
    this.#next = null;
    this.#asking = false;
    if (this.#button("undo") && this.#seen) this.#try(() => this.ask({ do: "cancel" }));
  }

  // What is painted.

  #silent = false;

  #quietly(layer, bitmap) {
    this.#silent = true;
    this.canvas.paint(layer, bitmap);
    this.#silent = false;
  }

  #painted(layer) {
    this.#show();
    if (this.#silent) return;
    this.#stored = this.#stored.then(() => this.#try(() => this.#store(layer)));
    this.#tell("painted", { layer });
  }

  async #store(layer) { return this.#ask({ do: "paint", layer }, await this.canvas.layer(layer)); }

  // Buttons and keys.

  tool(name) {
    this.canvas.tool = this.#at("board").dataset.tool = name;
    for (const each of this.#root.querySelectorAll("#tools [data-tool]")) each.ariaPressed = each.dataset.tool === name;
    this.canvas.draw();
  }

  #show() {
    const there = Boolean(this.#seen);
    const set = (act, enabled) => { const button = this.#button(act); if (button) button.disabled = !enabled; };
    for (const name of ["undo", "redo"]) set(name, there && !this.#busy && this.state[`can_${name}`]);
    for (const act of ["compare", "split"]) set(act, there);
    set("apply", there && this.canvas.moving && !this.#busy);
    for (const name of LAYERS) this.#root.querySelector(`#tools [data-tool="${name}"]`).dataset.painted = !this.canvas.isEmpty(name);
  }

  #acts = {
    undo: () => this.#long("", { do: "undo" }),
    redo: () => this.#long("", { do: "redo" }),
    cancel: () => this.ask({ do: "cancel" }),
    apply: () => this.canvas.apply(),
    fit: () => this.canvas.fit(),
    erase: () => this.#toggle("erase"),
    box: () => this.#toggle("box"),
    invert: () => this.#paints && this.canvas.paint(this.canvas.tool, "invert"),
    clear: () => (this.#paints ? this.canvas.paint(this.canvas.tool, "clear") : this.canvas.remove()),
    split: () => this.#split(this.canvas.split === null ? 0.5 : null),
    open: () => this.#at("file").click(),
    choose: () => this.#at("file").click(),
  };

  get #paints() { return this.canvas.enabled && LAYERS.includes(this.canvas.tool); }

  #toggle(name) {
    this.canvas.brush[name] = !this.canvas.brush[name];
    this.#button(name).ariaPressed = this.canvas.brush[name];
  }

  #split(share) {
    this.canvas.split = share;
    this.#button("split").ariaPressed = share !== null;
    const line = this.#at("split");
    line.hidden = share === null;
    if (share !== null) line.style.left = `${100 * share}%`;
    line.ariaValueNow = Math.round(100 * (share ?? 0));
    this.canvas.draw();
  }

  #wire() {
    const stage = this.#at("stage");
    this.#root.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button?.dataset.tool) this.tool(button.dataset.tool);
      else if (button && !button.disabled) this.#acts[button.dataset.act]?.();
    });
    const before = (on) => { this.canvas.before = on; this.canvas.draw(); };
    const compare = this.#button("compare");
    compare.onpointerdown = () => before(true);
    compare.onpointerup = compare.onpointerleave = compare.onpointercancel = () => before(false);
    const line = this.#at("split");
    const slide = (share) => this.#split(Math.min(0.98, Math.max(0.02, share)));
    line.onpointerdown = ({ pointerId }) => line.setPointerCapture(pointerId);
    line.onpointermove = ({ buttons, clientX }) => {
      const box = stage.getBoundingClientRect();
      if (buttons) slide((clientX - box.left) / box.width);
    };
    line.onkeydown = ({ key }) => { if (key in nudgeOf) slide(this.canvas.split + nudgeOf[key][0] * 0.02); };
    const size = this.#at("size");
    size.oninput = () => { this.canvas.brush.size = Number(size.value); this.canvas.draw(); };
    size.oninput();
    stage.addEventListener("keydown", (event) => this.#pressed(event));
    stage.addEventListener("keyup", ({ key }) => { if (key === " ") before(this.canvas.panning = false); });
    if (this.#at("welcome")) this.#receive(stage);
    this.#before = before;
  }

  #before = null;

  /** Take pictures: chosen, dropped, pasted. */
  #receive(stage) {
    const given = async ([file]) => {
      if (!file?.type.startsWith("image/")) return;
      await this.open(file);
      this.#tell("opened", {});
    };
    const input = this.#at("file");
    input.onchange = () => { given(input.files); input.value = ""; };
    stage.addEventListener("dragover", (event) => event.preventDefault());
    stage.addEventListener("drop", (event) => { event.preventDefault(); given(event.dataTransfer.files); });
    stage.addEventListener("paste", (event) => given(event.clipboardData.files));
  }

  #pressed(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.altKey || event.target.closest("#split") || (event.target.closest("button, input") && ["Enter", " "].includes(key))) return;
    const call = event.ctrlKey || event.metaKey ? this.#command(key, event.shiftKey) : this.#key(key, event);
    if (!call) return;
    event.preventDefault();
    event.stopPropagation();
    call();
  }

  #command(key, shift) {
    const act = { z: shift ? "redo" : "undo", y: "redo" }[key];
    return act && (() => { if (this.#button(act) && !this.#button(act).disabled) this.#acts[act](); });
  }

  #key(key, { shiftKey, repeat }) {
    if (toolOf[key]) return () => this.tool(toolOf[key]);
    if (keysOf[key]) return this.#acts[keysOf[key]];
    if (nudgeOf[key] && this.canvas.selected) return () => this.canvas.nudge(...nudgeOf[key].map((by) => by * (shiftKey ? 10 : 1)));
    return {
      n: () => { this.tool("pairs"); this.canvas.add(); },
      t: () => this.canvas.next(),
      " ": () => { if (!repeat) this.#before(this.canvas.panning = true); },
      Escape: () => (this.#busy ? this.#acts.cancel() : this.canvas.escape()),
      "+": () => this.canvas.zoom(1.25), "=": () => this.canvas.zoom(1.25), "-": () => this.canvas.zoom(0.8),
    }[key];
  }
}

/** A picture's file, smaller where it has more pixels than are edited: a phone's has. */
async function fitted(blob) {
  const bitmap = await bitmapOf(blob).catch(() => { throw new Error("This is no picture that the browser can read."); });
  const share = Math.min(1, Math.sqrt(MOST_PX / (bitmap.width * bitmap.height)));
  if (share === 1) return blob;
  const small = new OffscreenCanvas(Math.floor(bitmap.width * share), Math.floor(bitmap.height * share));
  small.getContext("2d").drawImage(bitmap, 0, 0, small.width, small.height);
  return small.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}
