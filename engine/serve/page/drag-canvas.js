/* A canvas to drag on, for whichever page: a picture, points, a mask and a grip to paint, pan and zoom.

    const canvas = new DragCanvas(element);
    await canvas.open(bitmap);
    canvas.addEventListener("move", ({ detail }) => live.move(detail.targets));
    canvas.frame(bitmap, { kind: "model", targets });

It shows what a pointer does at once (warp.js) and knows no service. All coordinates are (x, y) in
pixels of the picture. Events, with what they bring in `detail`:

    grab     {handles}            a pointer took hold, or the pairs have changed while held
    move     {handles, targets}   it moved on
    release  {handles, targets}   it let go (with the tool "pairs": see `apply`)
    cancel                        it let go and nothing has moved; or `cancel`
    pairs    {pairs, selected}    there are others, or another one is selected
    painted  {layer}              "mask" or "grip" has changed; see `layer`
    drawn    {kind, ms, event}    the picture was drawn; kind: warped, model, refined or null
    view     {scale}                                                                              */

import { Field, painter } from "./warp.js";

const LAYER_PX = 1024; // longest side of what is painted: more is not seen
const REACH_PX = { mouse: 11, pen: 16, touch: 24 };
const MOST = 40;

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const drawing = (width, height, options) => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return canvas.getContext("2d", options);
};

const moves = ({ handle, target }) => handle.join() !== target.join();

export class DragCanvas extends EventTarget {
  tool = "drag"; // drag, pairs, mask, grip, pan
  brush = { size: 24, erase: false, box: false }; // size: its diameter on the screen, in CSS pixels
  split = null; // 0 to 1 of the element's width: left of it the picture before
  before = false; // whether the picture before is shown
  panning = false; // whether the next press pans (space)
  enabled = true;
  fromBefore = false; // whether a drag begins with the picture before
  pairs = []; // {handle, target}
  selected = null; // {pair, end: "handle" | "target"}
  size = null; // [width, height] of the picture
  view = { scale: 1, x: 0, y: 0 };
  #element;
  #painter;
  #overlay;
  #layers = {};
  #field = null; // while something is held
  #from = null; // the targets that the texture "frame" answers
  #kind = null;
  #pointers = new Map();
  #gesture = null;
  #hover = null;
  #fitted = true;
  #asked = 0;
  #event = 0;
  #maskLoaded = false;

  /** options: radius of what moves without a grip, in the picture's pixels; flat: without WebGL. */
  constructor(element, { radius = 24, flat = false } = {}) {
    super();
    this.radius = radius;
    this.#element = element;
    const [shown, over] = ["picture", "overlay"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = name;
      Object.assign(canvas.style, { position: "absolute", inset: "0", width: "100%", height: "100%" });
      element.append(canvas);
      return canvas;
    });
    Object.assign(element.style, { touchAction: "none", overflow: "hidden", userSelect: "none" });
    if (getComputedStyle(element).position === "static") element.style.position = "relative";
    this.#painter = painter(shown, { flat });
    this.#painter.onrestored = () => this.draw();
    this.#overlay = over.getContext("2d");
    const on = (type, call, options) => element.addEventListener(type, call.bind(this), options);
    on("pointerdown", this.#down);
    on("pointermove", this.#moved);
    on("pointerup", this.#up);
    on("pointercancel", this.#lost);
    on("pointerleave", () => { this.#hover = null; this.draw(); });
    on("wheel", this.#wheel, { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => this.#resized()).observe(element);
  }

  // What is shown.

  /** Show another picture; points, mask and grip are let go where it has another size. */
  async open(source, { keep = false } = {}) {
    const size = [source.width, source.height];
    const same = keep && this.size && this.size.join() === size.join();
    const small = await this.#fitting(source);
    this.#let();
    this.size = size;
    this.#painter.load("now", small);
    this.#painter.load("before", small);
    if (!same) {
      this.#layers = { mask: this.#layer("#fff"), grip: this.#layer(this.#colour()) };
      this.#setPairs([]);
      this.fit();
    }
    this.#kind = null;
    this.draw();
  }

  /** Show what the picture has become; it stays the one to compare with. */
  async show(source, kind = null) {
    const small = await this.#fitting(source);
    this.#let();
    this.#painter.load("now", small);
    this.#kind = kind;
    this.draw();
  }

  /** Show the picture to compare with. */
  async compareWith(source) { this.#painter.load("before", await this.#fitting(source)); this.draw(); }

  /** Show a frame that answers targets; it is moved on to where the pointer is by now. */
  frame(bitmap, { kind, targets }) {
    if (!this.#field) return;
    this.#painter.load("frame", bitmap);
    this.#from = targets;
    this.#kind = kind;
    this.draw();
  }

  get held() { return this.#field !== null; }

  /** Scale a picture down to what the device can hold, not in this thread. */
  async #fitting(source) {
    const longest = Math.max(source.width, source.height);
    const most = Math.min(4096, this.#painter.largest);
    if (longest <= most) return source;
    const [resizeWidth, resizeHeight] = [source.width, source.height]
      .map((side) => Math.max(1, Math.round(side * most / longest)));
    return createImageBitmap(source, { resizeWidth, resizeHeight, resizeQuality: "high" });
  }

  #colour() { return getComputedStyle(this.#element).getPropertyValue("--accent").trim() || "#6d5cff"; }

  draw() { if (!this.#asked) this.#asked = requestAnimationFrame(() => this.#draw()); }

  #draw() {
    this.#asked = 0;
    const began = performance.now();
    const kind = this.size ? this.#drawPicture() : null;
    this.#drawOver();
    const event = this.#event && began - this.#event;
    this.#event = 0;
    this.#tell("drawn", { kind, ms: performance.now() - began, event });
  }

  #drawPicture() {
    const ratio = this.#ratio;
    const { scale, x, y } = this.view;
    const scene = {
      view: { scale: scale * ratio, x: x * ratio, y: y * ratio }, size: this.size,
      shown: this.before ? "before" : "now", mesh: null, masked: false, split: null,
    };
    let kind = this.before ? null : this.#kind;
    if (this.#field && !this.before) {
      const to = this.#targets;
      const from = this.#from ?? this.#handles;
      const left = to.some((point, i) => Math.hypot(point[0] - from[i][0], point[1] - from[i][1]) > 0.5);
      scene.shown = this.#from ? "frame" : this.fromBefore ? "before" : "now";
      kind = this.#from && !left ? this.#kind : this.moving ? "warped" : null;
      if (left) {
        scene.masked = !this.#layers.mask.empty;
        if (scene.masked && !this.#maskLoaded) this.#painter.load("mask", this.#layers.mask.context.canvas);
        this.#maskLoaded = scene.masked;
        scene.mesh = this.#field.mesh(from, to);
      }
    }
    if (this.split !== null) scene.split = { name: "before", at: this.split * this.#element.clientWidth * ratio };
    this.#painter.paint(scene);
    return kind;
  }

  // Where it is seen.

  get #ratio() { return Math.min(2, devicePixelRatio || 1); }

  #resized() {
    const { clientWidth, clientHeight } = this.#element;
    for (const canvas of this.#element.querySelectorAll(":scope > canvas")) {
      canvas.width = Math.max(1, Math.round(clientWidth * this.#ratio));
      canvas.height = Math.max(1, Math.round(clientHeight * this.#ratio));
    }
    if (this.#fitted) this.fit();
    cancelAnimationFrame(this.#asked); // at once: a canvas that was resized is empty
    this.#draw();
  }

  fit() {
    if (!this.size) return;
    const { clientWidth, clientHeight } = this.#element;
    const room = clientWidth < 600 ? 12 : 32;
    const scale = Math.max(0.01, Math.min((clientWidth - 2 * room) / this.size[0], (clientHeight - 2 * room) / this.size[1], 12));
    this.#fitted = true;
    this.#look({
      scale,
      x: (clientWidth - scale * this.size[0]) / 2,
      y: (clientHeight - scale * this.size[1]) / 2,
    });
  }

  /** Zoom by a factor about a place of the element (default: its middle). */
  zoom(factor, at = [this.#element.clientWidth / 2, this.#element.clientHeight / 2]) {
    if (!this.size) return;
    const { scale, x, y } = this.view;
    const next = clamp(scale * factor, 0.02, MOST);
    const by = next / scale;
    this.#fitted = false;
    this.#look({ scale: next, x: at[0] - (at[0] - x) * by, y: at[1] - (at[1] - y) * by });
  }

  #look(view) {
    const margin = 40; // some of the picture is always seen
    const { clientWidth, clientHeight } = this.#element;
    view.x = clamp(view.x, margin - view.scale * this.size[0], clientWidth - margin);
    view.y = clamp(view.y, margin - view.scale * this.size[1], clientHeight - margin);
    this.view = view;
    this.#tell("view", { scale: view.scale });
    this.draw();
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode ? 20 : 1;
    if (event.shiftKey) return this.#pan(-lines * (event.deltaX || event.deltaY), 0);
    return this.zoom(Math.exp(-lines * clamp(event.deltaY, -200, 200) * (event.ctrlKey ? 0.01 : 0.0018)), this.#at(event));
  }

  #pan(dx, dy) {
    if (!this.size) return;
    this.#fitted = false;
    this.#look({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
  }

  #at(event) {
    const box = this.#element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** Where a place of the element is in the picture; inside: kept within it. */
  point([x, y], inside = true) {
    const { view, size } = this;
    const at = [(x - view.x) / view.scale, (y - view.y) / view.scale];
    return inside ? at.map((value, axis) => clamp(Math.round(value * 100) / 100, 0, size[axis] - 1)) : at;
  }

  // Points.

  get #handles() { return this.pairs.map((pair) => pair.handle); }

  get #targets() { return this.pairs.map((pair) => pair.target); }

  get moving() { return this.pairs.some(moves); }

  #tell(type, detail = null) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  #setPairs(pairs, selected = null) {
    this.pairs = pairs;
    this.selected = selected;
    this.#tell("pairs", { pairs, selected });
    this.draw();
  }

  /** Take hold of all handles: solve their weights, once. */
  #hold() {
    this.#from = null;
    this.#kind = null;
    this.#maskLoaded = false;
    const { mask, grip } = this.#layers;
    this.#field = new Field(this.size, this.#handles, {
      radius: this.radius,
      mask: mask.empty ? null : (columns, rows) => sampled(mask, columns, rows, 127),
      grip: grip.empty ? null : (columns, rows) => sampled(grip, columns, rows, 15), // thin ropes hold
    });
    this.#tell("grab", { handles: this.#handles });
    if (this.moving) this.#tellMove("move");
    this.draw();
  }

  #let() {
    this.#field = this.#from = null;
  }

  #tellMove(type) {
    this.#tell(type, { handles: this.#handles, targets: this.#targets });
  }

  /** Let go, and forget the pairs. */
  cancel() {
    const held = this.held;
    this.#gesture = null;
    this.#let();
    this.#kind = null;
    if (this.pairs.length) this.#setPairs([]);
    if (held) this.#tell("cancel");
    this.draw();
  }

  /** End a drag of several pairs, as the pointer does with one. */
  apply() {
    if (this.enabled && this.held && this.moving) this.#tellMove("release");
  }

  /** Forget the pairs once they are dragged; what is held stays seen until `show`. */
  done() { this.#setPairs([]); }

  remove() {
    if (!this.selected || !this.enabled) return;
    const rest = this.pairs.filter((pair) => pair !== this.selected.pair);
    if (!rest.length) return this.cancel();
    this.#setPairs(rest, { pair: rest.at(-1), end: "target" });
    this.#hold();
  }

  /** Add a pair in the middle of what is seen, for those without a pointer. */
  add() {
    if (!this.size || !this.enabled) return;
    const { clientWidth, clientHeight } = this.#element;
    const at = this.point([clientWidth / 2, clientHeight / 2]);
    const pair = { handle: at, target: [...at] };
    this.#setPairs([...this.pairs, pair], { pair, end: "target" });
    this.#hold();
  }

  /** Select the next end of the next pair. */
  next() {
    const ends = this.pairs.flatMap((pair) => [{ pair, end: "handle" }, { pair, end: "target" }]);
    const now = ends.findIndex(({ pair, end }) => pair === this.selected?.pair && end === this.selected.end);
    if (ends.length) this.#setPairs(this.pairs, ends[(now + 1) % ends.length]);
  }

  nudge(dx, dy) {
    if (!this.selected || !this.enabled) return;
    const { pair, end } = this.selected;
    this.#place(pair, end, [pair[end][0] + dx, pair[end][1] + dy]);
    if (end === "handle") this.#hold();
  }

  #place(pair, end, at) {
    pair[end] = at.map((value, axis) => clamp(value, 0, this.size[axis] - 1));
    this.#tell("pairs", { pairs: this.pairs, selected: this.selected });
    if (end === "target" && this.held) this.#tellMove("move");
    this.draw();
  }

  #near(at, reach) {
    const ends = this.pairs.flatMap((pair) => [{ pair, end: "target" }, { pair, end: "handle" }]);
    const far = ({ pair, end }) => {
      const [x, y] = this.#screen(pair[end]);
      return Math.hypot(at[0] - x, at[1] - y);
    };
    return ends.filter((each) => far(each) <= reach).sort((one, other) => far(one) - far(other))[0] ?? null;
  }

  #screen([x, y]) { return [this.view.x + x * this.view.scale, this.view.y + y * this.view.scale]; }

  // Mask and grip.

  #layer(colour) {
    const shrunk = Math.min(1, LAYER_PX / Math.max(...this.size));
    const [width, height] = this.size.map((side) => Math.max(1, Math.round(side * shrunk)));
    const context = drawing(width, height, { willReadFrequently: true });
    return { context, scale: shrunk, colour, empty: true };
  }

  /** What is painted, as a black and white picture of the picture's size; null: nothing. */
  async layer(name) {
    const { context, empty } = this.#layers[name];
    if (empty) return null;
    const whole = drawing(...this.size);
    whole.imageSmoothingEnabled = false;
    whole.drawImage(context.canvas, 0, 0, ...this.size);
    whole.globalCompositeOperation = "source-in"; // whatever its colour is: white
    whole.fillStyle = "#fff";
    whole.fillRect(0, 0, ...this.size);
    whole.globalCompositeOperation = "destination-over";
    whole.fillStyle = "#000";
    whole.fillRect(0, 0, ...this.size);
    return new Promise((resolve) => { whole.canvas.toBlob(resolve, "image/png"); });
  }

  isEmpty(name) { return this.#layers[name]?.empty ?? true; }

  /** Set a layer: from a black and white picture, "clear" or "invert". */
  paint(name, what) {
    const layer = this.#layers[name];
    if (!layer) return;
    const { context } = layer;
    const { width, height } = context.canvas;
    if (what === "clear") context.clearRect(0, 0, width, height);
    else if (what === "invert") {
      this.#fill(layer, "xor", () => context.rect(0, 0, width, height));
    } else {
      context.clearRect(0, 0, width, height);
      context.drawImage(what, 0, 0, width, height);
      const pixels = context.getImageData(0, 0, width, height);
      for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i] > 127 ? 255 : 0;
      context.putImageData(pixels, 0, 0);
      this.#fill(layer, "source-in", () => context.rect(0, 0, width, height));
    }
    this.#painted(name);
  }

  #fill({ context, colour }, how, path) {
    context.globalCompositeOperation = how;
    context.fillStyle = context.strokeStyle = colour;
    context.beginPath();
    path();
    context.fill();
    context.globalCompositeOperation = "source-over";
  }

  #painted(name) {
    const layer = this.#layers[name];
    layer.empty = !sampled(layer, 64, 64).some(Boolean);
    this.#maskLoaded = false;
    if (this.pairs.length && this.held) this.#hold();
    this.#tell("painted", { layer: name });
    this.draw();
  }

  /** A piece of a stroke, from one place of the element to another. */
  #stroke(from, to) {
    const layer = this.#layers[this.tool];
    const { context, colour, scale } = layer;
    const [a, b] = [from, to].map((at) => this.point(at, false).map((value) => value * scale));
    context.globalCompositeOperation = this.brush.erase ? "destination-out" : "source-over";
    context.strokeStyle = colour;
    context.lineCap = "round";
    context.lineWidth = Math.max(1, this.brush.size / this.view.scale * scale);
    context.beginPath();
    context.moveTo(...a);
    context.lineTo(b[0] + 0.01, b[1]);
    context.stroke();
    context.globalCompositeOperation = "source-over";
    layer.empty = false;
  }

  #box(from, to) {
    const layer = this.#layers[this.tool];
    const [[x, y], [u, v]] = [from, to].map((at) => this.point(at, false).map((value) => value * layer.scale));
    this.#fill(layer, this.brush.erase ? "destination-out" : "source-over", () => layer.context.rect(x, y, u - x, v - y));
  }

  // Pointers.

  #down(event) {
    if (!this.size || (event.pointerType === "mouse" && event.button === 2)) return;
    this.#element.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    if (this.#pointers.size === 2) return this.#pinch();
    if (this.#pointers.size > 2) return;
    const panned = event.button === 1 || this.tool === "pan" || this.panning;
    if (panned) this.#gesture = { type: "pan" };
    else if (!this.enabled) this.#gesture = null;
    else if (this.#layers[this.tool]) this.#begin(at);
    else this.#take(at, REACH_PX[event.pointerType] ?? 11);
    this.draw();
  }

  #begin(at) {
    const { context, empty } = this.#layers[this.tool];
    const was = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
    this.#gesture = { type: this.brush.box ? "box" : "stroke", begun: at, at, was, empty };
    if (!this.brush.box) this.#stroke(at, at);
  }

  /** Take hold: of a point that is there, or of the picture. */
  #take(at, reach) {
    const several = this.tool === "pairs";
    const near = several ? this.#near(at, reach) : null;
    const inside = this.point(at, false).every((value, axis) => value >= 0 && value <= this.size[axis]);
    if (!near && !inside) { this.#gesture = { type: "pan" }; return; }
    if (near) {
      this.#setPairs(this.pairs, near);
      this.#gesture = { type: "drag", ...near };
      if (!this.held) this.#hold();
      return;
    }
    const handle = this.point(at);
    const pair = { handle, target: [...handle] };
    this.#setPairs(several ? [...this.pairs, pair] : [pair], { pair, end: "target" });
    this.#gesture = { type: "drag", pair, end: "target" };
    this.#hold();
  }

  #moved(event) {
    const at = this.#at(event);
    this.#hover = event.pointerType === "touch" ? null : at;
    if (!this.#pointers.has(event.pointerId)) {
      this.#cursor(at);
      if (this.#layers[this.tool]) this.draw();
      return;
    }
    const last = this.#pointers.get(event.pointerId);
    this.#pointers.set(event.pointerId, at);
    const { type } = this.#gesture ?? {};
    this.#event ||= event.timeStamp;
    if (type === "pan") this.#pan(at[0] - last[0], at[1] - last[1]);
    else if (type === "pinch") this.#pinched();
    else if (type === "drag") this.#place(this.#gesture.pair, this.#gesture.end, this.point(at));
    else if (type === "stroke") this.#strokes(event, at);
    else if (type === "box") { this.#gesture.at = at; this.draw(); }
  }

  #strokes(event, at) {
    for (const each of event.getCoalescedEvents?.() ?? []) {
      const place = this.#at(each);
      this.#stroke(this.#gesture.at, place);
      this.#gesture.at = place;
    }
    this.#stroke(this.#gesture.at, at);
    this.#gesture.at = at;
    this.draw();
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const gesture = this.#gesture;
    if (gesture?.type === "pinch" && this.#pointers.size) { this.#gesture = { type: "pan" }; return; }
    this.#gesture = null;
    if (gesture?.type === "drag") this.#dropped(gesture);
    if (gesture?.type === "box") this.#box(gesture.begun, gesture.at);
    if (gesture?.type === "stroke" || gesture?.type === "box") this.#painted(this.tool);
    this.draw();
  }

  #dropped({ end }) {
    if (end === "handle") return this.#hold();
    if (this.tool === "pairs") return;
    if (this.moving) this.#tellMove("release");
    else this.cancel();
  }

  #lost(event) {
    this.#pointers.delete(event.pointerId);
    if (this.#gesture) this.#undoGesture();
    this.#gesture = null;
  }

  /** Take back what a gesture has begun: a second finger came, or escape. */
  #undoGesture() {
    const { type, was, empty, pair } = this.#gesture;
    if (type === "stroke") {
      this.#layers[this.tool].context.putImageData(was, 0, 0);
      this.#layers[this.tool].empty = empty;
    }
    if (type === "drag" && this.tool === "drag") this.cancel();
    else if (type === "drag" && !moves(pair)) this.remove();
    this.#gesture = null;
    this.draw();
  }

  /** End what goes on by a key. Returns whether there was anything to end. */
  escape() {
    const something = this.#gesture !== null || this.held || this.pairs.length > 0;
    if (this.#gesture && this.#gesture.type !== "drag") this.#undoGesture();
    else if (something) this.cancel();
    return something;
  }

  #pinch() {
    if (this.#gesture) this.#undoGesture();
    this.#gesture = { type: "pinch", ...this.#spread() };
  }

  #spread() {
    const [[x, y], [u, v]] = [...this.#pointers.values()];
    return { middle: [(x + u) / 2, (y + v) / 2], apart: Math.max(10, Math.hypot(u - x, v - y)) };
  }

  #pinched() {
    if (this.#pointers.size < 2) return;
    const now = this.#spread();
    const { middle, apart } = this.#gesture;
    this.#pan(now.middle[0] - middle[0], now.middle[1] - middle[1]);
    this.zoom(now.apart / apart, now.middle);
    Object.assign(this.#gesture, now);
  }

  #cursor(at) {
    const over = this.tool === "pairs" && this.#near(at, REACH_PX.mouse);
    const cursors = { drag: "grab", pairs: over ? "move" : "crosshair", pan: "grab" };
    this.#element.style.cursor = this.panning ? "grab" : cursors[this.tool] ?? "none";
  }

  // What lies over the picture.

  #drawOver() {
    const context = this.#overlay;
    const ratio = this.#ratio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.fillStyle = "rgb(0 0 0 / 0.01)"; // Chromium 150 may skip a frame that is cleared only
    context.fillRect(0, 0, 1, 1);
    if (!this.size || this.before) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#drawLayers(context);
    this.pairs.forEach((pair) => this.#drawPair(context, pair));
    if (this.#layers[this.tool] && this.enabled) this.#drawBrush(context);
  }

  #drawLayers(context) {
    const { scale, x, y } = this.view;
    const box = [x, y, this.size[0] * scale, this.size[1] * scale];
    const { mask, grip } = this.#layers;
    if (!mask.empty && this.tool === "mask") {
      context.fillStyle = "rgb(8 8 16 / 0.62)";
      context.fillRect(...box);
      context.globalCompositeOperation = "destination-out"; // what may change is not dimmed
      context.drawImage(mask.context.canvas, ...box);
      context.globalCompositeOperation = "source-over";
    }
    if (!grip.empty && this.tool === "grip") {
      context.globalAlpha = 0.55;
      context.drawImage(grip.context.canvas, ...box);
      context.globalAlpha = 1;
    }
  }

  #drawPair(context, pair) {
    const [from, to] = [this.#screen(pair.handle), this.#screen(pair.target)];
    const colour = this.#accent ??= this.#colour();
    const long = Math.hypot(to[0] - from[0], to[1] - from[1]);
    const ring = ([x, y], radius, fill, edge, wide) => {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fillStyle = fill;
      context.fill();
      context.lineWidth = wide;
      context.strokeStyle = edge;
      context.stroke();
    };
    context.lineCap = "round";
    for (const [wide, stroke] of long > 12 ? [[5, "rgb(255 255 255 / 0.9)"], [2.5, colour]] : []) {
      context.lineWidth = wide;
      context.strokeStyle = stroke;
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...to);
      context.stroke();
    }
    const chosen = (end) => this.tool === "pairs" && this.selected?.pair === pair && this.selected.end === end;
    ring(from, chosen("handle") ? 8 : 5.5, colour, "#fff", 2);
    if (long > 1 || chosen("target")) ring(to, chosen("target") ? 9 : 7, "#fff", colour, 3);
  }

  #accent = null;

  /** Read the accent's colour anew: the theme has changed. */
  themed() {
    this.#accent = null;
    this.draw();
  }

  #drawBrush(context) {
    const { type, begun, at } = this.#gesture ?? {};
    const ring = (wide, stroke, path) => {
      context.lineWidth = wide;
      context.strokeStyle = stroke;
      context.beginPath();
      path();
      context.stroke();
    };
    const twice = (path) => { ring(3, "rgb(0 0 0 / 0.5)", path); ring(1.5, "#fff", path); };
    context.setLineDash(this.brush.erase ? [4, 4] : []);
    if (type === "box") twice(() => context.rect(...begun, at[0] - begun[0], at[1] - begun[1]));
    else if (this.#hover && this.brush.box) {
      const [x, y] = this.#hover;
      twice(() => { context.moveTo(x - 9, y); context.lineTo(x + 9, y); context.moveTo(x, y - 9); context.lineTo(x, y + 9); });
    } else if (this.#hover) twice(() => context.arc(...this.#hover, this.brush.size / 2, 0, 2 * Math.PI));
    context.setLineDash([]);
  }
}

/** A layer at the nodes of a grid: 1 where it is painted. */
function sampled({ context }, columns, rows, least = 15) {
  const small = drawing(columns, rows, { willReadFrequently: true });
  small.imageSmoothingQuality = "high";
  small.drawImage(context.canvas, 0, 0, columns, rows);
  const { data } = small.getImageData(0, 0, columns, rows);
  return Uint8Array.from({ length: columns * rows }, (_, node) => (data[4 * node + 3] > least ? 1 : 0));
}
