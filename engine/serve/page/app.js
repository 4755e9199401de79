/* The page: a session of the service (api.js, live.js) on a canvas to drag on (drag-canvas.js). */

import { address, ask, liveAddress, stream } from "./api.js";
import { DragCanvas } from "./drag-canvas.js";
import { Live } from "./live.js";
import { $, copy, dress, failed, film, made, saveAs, sure, theme, toast, Work } from "./ui.js";

const MOST_FRAMES = 120;
const LAYERS = ["mask", "grip"];

dress();
const canvas = new DragCanvas($("canvas"));
const work = new Work();
const changeTheme = theme(() => canvas.themed());
let info = null;
let session = null; // the service's state
let live = null;
let history = []; // {picture: address of a thumbnail, drag}
let at = 0; // in the history
let way = []; // frames of the last drag
let grabbed = Promise.resolve();
let stored = null; // mask and grip, as far as the service has them
let refining = null; // {drag}, after a release
let lastSeen = null; // the picture that is seen, to go on with where the session is gone

const path = (rest = "") => `/sessions/${encodeURIComponent(session.id)}${rest}`;
const picture = async (rest, format = "png") => (await ask(path(`/${rest}?format=${format}`))).blob();
const acts = {};

// A session: begun, gone on with, ended.

async function begin(text, send) {
  work.start(text);
  try {
    await enter(await (await send()).json());
    return true;
  } catch (error) {
    failed(error);
    return false;
  } finally {
    work.end();
  }
}

async function enter(state) {
  if (live) live.close();
  live = null;
  refining = null;
  session = state;
  sessionStorage.session = state.id;
  lastSeen = await picture("image");
  const seen = await createImageBitmap(lastSeen);
  await canvas.open(seen);
  showLayers();
  history = [];
  way = [];
  at = 0;
  if (state.can_undo) {
    const before = await createImageBitmap(await picture("source"));
    await canvas.compareWith(before);
    history = [{ picture: await thumbnail(before) }];
    at = 1;
  }
  history.push({ picture: await thumbnail(seen) });
  $("welcome").hidden = true;
  $("tools").hidden = document.querySelector("footer").hidden = false;
  $("prompt").value = state.prompt ?? "";
  listen();
  await Promise.all(LAYERS.filter((name) => state[name]).map(found));
  show();
}

/** Show a layer that the service has; one that it does not hand out must not work unseen. */
async function found(name) {
  const layer = await ask(path(`/${name}`)).catch(() => null);
  if (layer) canvas.paint(name, await createImageBitmap(await layer.blob()));
  else await ask(path(`/${name}`), { method: "DELETE" });
}

function listen() {
  const mine = session.id;
  live = new Live(liveAddress(mine), async () => (await fetch(address(`/sessions/${mine}`))).status !== 404);
  const on = (type, call) => live.addEventListener(type, ({ detail }) => call(detail));
  on("status", (status) => {
    $("status").textContent = { open: "", lost: "Connecting…", taken: "Open elsewhere", gone: "" }[status];
    canvas.enabled = status !== "taken" && !refining;
    if (status === "taken") toast("This session is open in another window.", { action: ["Take it back", () => live.again()] });
    if (status === "gone") revive();
  });
  on("state", settle);
  on("frame", follow);
  on("progress", (message) => { if (refining) work.progress(message); });
  on("error", (error) => {
    failed(error);
    if (error.code === "session" || error.code === "point" || error.code === "mask" || refining) stop();
  });
}

/** The service has forgotten the session: open the picture that was seen anew. */
async function revive() {
  if (await anew(session.prompt)) toast("The service had forgotten the session; it goes on from the picture that you saw.");
}

/** Begin a session with the picture that is seen, its mask and its grip. */
async function anew(prompt) {
  const layers = await Promise.all(LAYERS.map((name) => canvas.layer(name)));
  if (!await begin("Opening…", () => ask("/sessions", { body: form({ image: lastSeen, prompt: prompt ?? "" }) }))) return false;
  for (const [place, name] of LAYERS.entries()) {
    if (layers[place]) canvas.paint(name, await createImageBitmap(layers[place]));
  }
  return true;
}

async function openPicture(file) {
  if (!file) return;
  const blob = await fitting(file);
  await begin("Opening…", () => ask("/sessions", { body: form({ image: blob, prompt: session ? "" : $("prompt").value }) }));
}

/** Make a picture smaller that has more pixels than the service takes: a phone's have. */
async function fitting(file) {
  const bitmap = await createImageBitmap(file).catch(() => null); // the service says what is wrong with it
  const { pixels, side } = info.limits;
  if (!bitmap) return file;
  const share = Math.min(1, Math.sqrt(pixels / (bitmap.width * bitmap.height)), side / Math.max(bitmap.width, bitmap.height));
  if (share === 1 && file.size <= info.limits.body_bytes) return file;
  const small = made("canvas", { width: Math.floor(bitmap.width * share), height: Math.floor(bitmap.height * share) });
  small.getContext("2d").drawImage(bitmap, 0, 0, small.width, small.height);
  toast(`The picture is made smaller: ${small.width} × ${small.height}`);
  return blobOf(small, "image/jpeg", 0.95);
}

const blobOf = (canvas, ...how) => new Promise((resolve) => { canvas.toBlob(resolve, ...how); });

function form(fields) {
  const all = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value instanceof Blob) all.append(name, value, value.name ?? "picture");
    else all.append(name, value);
  }
  return all;
}

async function openSample(sample) {
  const body = form({ sample: sample.name, prompt: sample.prompt ?? "" });
  if (!await begin("Opening…", () => ask("/sessions", { body }))) return;
  if (sample.mask) {
    const mask = await (await ask(`/samples/${sample.name}/mask.png`)).blob();
    canvas.paint("mask", await createImageBitmap(mask));
  }
}

const openFile = (file) => file && begin("Opening…", () =>
  ask("/sessions/restore", { body: file, headers: { "Content-Type": "application/octet-stream" } }));

// A drag: grabbed, moved, released, refined.

const base = () => $("base").value || (session.can_undo ? "result" : "source");

canvas.addEventListener("grab", ({ detail }) => {
  if (!live) return;
  const take = () => {
    if (!canvas.held) return;
    live.grab(detail.handles, { base: base() });
    const targets = canvas.pairs.map((pair) => pair.target);
    if (canvas.moving) live.move(targets);
  };
  way = [];
  canvas.fromBefore = base() === "source" && session.can_undo;
  if (stored) grabbed = stored.then(take);
  else take();
});

canvas.addEventListener("move", ({ detail }) => live?.move(detail.targets));
canvas.addEventListener("cancel", () => live?.cancel());
canvas.addEventListener("release", async ({ detail }) => {
  refining = { handles: detail.handles, targets: detail.targets, base: base(), preset: $("preset").value };
  canvas.enabled = false;
  work.start("Refining…", true);
  show();
  await grabbed;
  if (refining) live.release(refining.preset, session.version);
});

async function follow({ kind, bitmap, blob, targets }) {
  if (kind === "warped") return null; // the canvas does that, and sooner
  if (way.length < MOST_FRAMES) way.push(blob);
  if (kind !== "refined") return canvas.frame(bitmap, { kind, targets });
  return refining && canvas.show(bitmap, kind); // else it is seen already, without loss
}

/** Take the service's state: after a drag, an undo, a connection. */
async function settle(state) {
  const changed = state.version !== session.version;
  session = state;
  if (!changed) return refining && !live.holds ? stop() : show();
  const drag = refining;
  refining = null;
  canvas.enabled = true;
  work.end();
  canvas.done();
  await look(drag ? "refined" : null);
  if (drag) {
    history = [...history.slice(0, at + 1), { picture: await thumbnail(await createImageBitmap(lastSeen)), drag }];
    at += 1;
    way.push(lastSeen);
  }
  return show();
}

async function look(kind) {
  lastSeen = await picture("image");
  await canvas.show(await createImageBitmap(lastSeen), kind);
}

function stop() {
  refining = null;
  canvas.enabled = true;
  work.end();
  canvas.cancel();
  show();
}

acts.cancel = () => {
  if (refining) {
    live.cancel();
    stop();
  } else if (session) ask(path("/cancel"), { method: "POST" }).catch(failed); // what was begun says when it ended
};

// Undo, redo, the history.

async function step(which) {
  if (!session?.[`can_${which}`] || refining) return;
  canvas.cancel();
  try {
    session = await (await ask(path(`/${which}`), { method: "POST" })).json();
    at += which === "undo" ? -1 : 1;
    await look(null);
    const seen = { picture: await thumbnail(await createImageBitmap(lastSeen)) };
    if (at < 0) history.unshift(seen), at = 0;
    else if (at === history.length) history.push(seen);
  } catch (error) {
    failed(error);
  }
  show();
}

acts.undo = () => step("undo");
acts.redo = () => step("redo");

async function goTo(place) {
  while (at !== place && session[at > place ? "can_undo" : "can_redo"]) {
    const before = at;
    await step(at > place ? "undo" : "redo");
    if (at === before) return;
  }
}

async function thumbnail(bitmap) {
  const side = 128 / Math.min(bitmap.width, bitmap.height);
  const small = made("canvas", { width: Math.ceil(bitmap.width * side), height: Math.ceil(bitmap.height * side) });
  small.getContext("2d").drawImage(bitmap, 0, 0, small.width, small.height);
  return URL.createObjectURL(await blobOf(small, "image/webp", 0.8));
}

// Mask and grip: the service has what is painted, and what is held is grabbed anew with it.

canvas.addEventListener("painted", ({ detail: { layer } }) => {
  if (live?.holds) live.cancel();
  const mine = stored = (stored ?? Promise.resolve()).then(async () => {
    const blob = await canvas.layer(layer);
    await ask(path(`/${layer}`), blob ? { method: "PUT", body: blob } : { method: "DELETE" }).catch(failed);
    if (stored === mine) stored = null;
  });
  showLayers();
});

function showLayers() {
  for (const name of LAYERS) $("tools").querySelector(`[data-tool="${name}"]`).dataset.painted = !canvas.isEmpty(name);
  button("maskfile").disabled = canvas.isEmpty("mask");
}

acts.erase = () => toggle("erase");
acts.box = () => toggle("box");
const toggle = (name) => {
  canvas.brush[name] = !canvas.brush[name];
  button(name).ariaPressed = canvas.brush[name];
};
const painting = () => canvas.enabled && LAYERS.includes(canvas.tool);
acts.invert = () => painting() && canvas.paint(canvas.tool, "invert");
acts.clear = () => (painting() ? canvas.paint(canvas.tool, "clear") : canvas.remove());
$("size").oninput = () => { canvas.brush.size = Number($("size").value); canvas.draw(); };
$("size").oninput();

// What is shown beside the picture.

const button = (act) => document.querySelector(`[data-act="${act}"]`);

function tool(name) {
  canvas.tool = document.body.dataset.tool = name;
  for (const each of $("tools").querySelectorAll("[data-tool]")) each.ariaPressed = each.dataset.tool === name;
  $("canvas").style.cursor = "";
  canvas.draw();
}

function show() {
  const idle = session && !refining;
  button("undo").disabled = !(idle && session.can_undo);
  button("redo").disabled = !(idle && session.can_redo);
  for (const act of ["compare", "split", "png", "webp", "file", "learn"]) button(act).disabled = !session;
  for (const act of ["command", "python"]) button(act).disabled = !history[at]?.drag;
  button("film").disabled = way.length < 2 || !idle;
  button("apply").disabled = !(idle && canvas.held && canvas.moving);
  $("history").replaceChildren(...history.map((item, place) => made("li", {}, (() => {
    const name = place ? `Step ${place}` : "The first picture";
    const each = made("button", { ariaLabel: name, title: name, onclick: () => goTo(place) }, made("img", { src: item.picture, alt: "" }));
    if (place === at) each.ariaCurrent = "step";
    return each;
  })())));
  $("history").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

canvas.addEventListener("pairs", () => session && (button("apply").disabled = !canvas.moving || Boolean(refining)));
canvas.addEventListener("drawn", ({ detail: { kind } }) => {
  if ($("badge").dataset.kind === (kind ?? "")) return;
  $("badge").dataset.kind = $("badge").textContent = kind ?? "";
});

// Before and after.

const compare = (on) => { canvas.before = on; canvas.draw(); };
const hold = button("compare");
hold.onpointerdown = () => compare(true);
hold.onpointerup = hold.onpointerleave = hold.onpointercancel = () => compare(false);

function split(share) {
  canvas.split = share;
  button("split").ariaPressed = share !== null;
  $("split").hidden = share === null;
  if (share !== null) $("split").style.left = `${100 * share}%`;
  $("split").ariaValueNow = Math.round(100 * (share ?? 0));
  canvas.draw();
}
acts.split = () => split(canvas.split === null ? 0.5 : null);
$("split").onpointerdown = ({ pointerId }) => $("split").setPointerCapture(pointerId);
$("split").onpointermove = ({ buttons, clientX }) => {
  const box = $("stage").getBoundingClientRect();
  if (buttons) split(Math.min(0.98, Math.max(0.02, (clientX - box.left) / box.width)));
};
$("split").onkeydown = (event) => {
  const by = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
  if (!by) return;
  event.stopPropagation();
  split(Math.min(0.98, Math.max(0.02, canvas.split + by)));
};

// Out of the page: files, text, learning.

const download = (what, name, format) => picture(what, format).then((blob) => saveAs(blob, name)).catch(failed);
acts.png = () => download("image", "dragged.png", "png");
acts.webp = () => download("image", "dragged.webp", "webp");
acts.file = () => download("file", "session.safetensors");
acts.maskfile = async () => saveAs(await canvas.layer("mask"), "mask.png");
acts.film = async () => {
  work.start("Recording the way…");
  await film([...way.slice(0, -1), way.at(-1)], canvas.size).then((file) => saveAs(file, file.name)).catch(failed);
  work.end();
};

const short = (value) => String(Math.round(value * 10) / 10);
const extras = (option, joined) => LAYERS.filter((name) => !canvas.isEmpty(name)).map((name) => option(name)).join(joined);

acts.command = () => {
  const { drag } = history[at];
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const pairs = drag.handles.map(([x, y], i) => ` --drag ${short(x)},${short(y)}:${drag.targets[i].map(short)}`).join("");
  const said = session.prompt ? ` --prompt ${quoted(session.prompt)}` : "";
  copy(`dragnoise edit picture.png${pairs}${extras((name) => ` --${name} ${name}.png`, "")}${said} --preset ${drag.preset} -o dragged.png`);
};

acts.python = () => {
  const lines = history.slice(1, at + 1).filter(({ drag }) => drag).map(({ drag }) => {
    const pairs = drag.handles.map((handle, i) => `((${handle.map(short).join(", ")}), (${drag.targets[i].map(short).join(", ")}))`);
    return `session.drag([${pairs.join(", ")}], preset="${drag.preset}", base="${drag.base}"${extras((name) => `, ${name}="${name}.png"`, "")})`;
  });
  copy(["from dragnoise.engine import Editor", "",
    `session = Editor.from_pretrained().open("picture.png", prompt=${JSON.stringify(session.prompt ?? "")})`,
    ...lines, 'session.image.save("dragged.png")', ""].join("\n"));
};

acts.learn = async () => {
  canvas.cancel();
  work.start("Learning the picture…", true);
  canvas.enabled = false;
  try {
    await stream(path("/personalise"), {}, (event, data) => {
      if (event === "progress") work.progress(data);
      if (event === "error") throw Object.assign(new Error(data.error?.message ?? data.message), { code: data.error?.code ?? data.code });
      if (event === "result") toast("The picture is learned: drags are more faithful now.");
    });
  } catch (error) {
    failed(error);
  }
  stop();
};

// Into the page: files, drops, pastes, the prompt.

acts.open = acts.choose = () => $("file").click();
acts.restore = () => $("sessionfile").click();
for (const [id, call] of [["file", openPicture], ["sessionfile", openFile]]) {
  $(id).onchange = () => { call($(id).files[0]); $(id).value = ""; };
}
const given = (files) => {
  const [file] = files;
  if (file) (file.type.startsWith("image/") ? openPicture : openFile)(file);
};
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").hidden = false; });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", (event) => { event.preventDefault(); $("drop").hidden = true; given(event.dataTransfer.files); });
addEventListener("paste", (event) => given(event.clipboardData.files));

$("ask").onsubmit = (event) => { event.preventDefault(); $("prompt").blur(); };
$("prompt").onchange = async () => {
  const prompt = $("prompt").value;
  const asked = "The new text makes a new session of the picture that you see. Steps before it cannot be undone then.";
  if (session.can_undo && !await sure(asked)) { $("prompt").value = session.prompt ?? ""; return; }
  await anew(prompt);
};
$("preset").onchange = () => { localStorage.preset = $("preset").value; };

// Keys and buttons.

acts.fit = () => canvas.fit();
acts.theme = changeTheme;
acts.apply = () => canvas.apply();
acts.help = () => $("help").showModal();

const KEYS = {
  v: () => tool("drag"), p: () => tool("pairs"), m: () => tool("mask"), g: () => tool("grip"), h: () => tool("pan"),
  o: acts.open, s: () => session && acts.split(), x: acts.erase, b: acts.box, i: acts.invert, "?": acts.help,
  0: acts.fit, "+": () => canvas.zoom(1.25), "=": () => canvas.zoom(1.25), "-": () => canvas.zoom(0.8),
  "[": () => resize(0.8), "]": () => resize(1.25),
  Delete: acts.clear, Backspace: acts.clear, Enter: acts.apply,
  Escape: () => {
    const menu = document.querySelector(".menu[open]");
    if (menu) menu.open = false;
    else if (!$("work").hidden) acts.cancel();
    else canvas.escape();
  },
  n: () => { tool("pairs"); canvas.add(); }, t: () => canvas.next(),
};
const resize = (by) => { $("size").value = Math.max(4, $("size").value * by); $("size").oninput(); };
const NUDGES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=range]), select, textarea, dialog[open]");
  const command = event.ctrlKey || event.metaKey;
  if (typing || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const pressed = event.target.closest("button, summary, input") && ["Enter", " "].includes(key);
  let call = command ? { z: event.shiftKey ? acts.redo : acts.undo, y: acts.redo }[key] : KEYS[key];
  if (!command && key === " " && !pressed && session) call = () => { if (!event.repeat) compare(canvas.panning = true); };
  if (!command && NUDGES[key] && canvas.selected) {
    call = () => canvas.nudge(...NUDGES[key].map((each) => each * (event.shiftKey ? 10 : 1)));
  }
  if (!call || pressed) return;
  event.preventDefault();
  call();
});
addEventListener("keyup", ({ key }) => { if (key === " ") { canvas.panning = false; compare(false); } });
$("canvas").addEventListener("pointerdown", () => { if (canvas.panning) compare(false); }, true);
document.addEventListener("click", ({ target }) => {
  const pressed = target.closest("[data-act], nav [data-tool]");
  if (!pressed || pressed.disabled) return;
  if (pressed.dataset.tool) tool(pressed.dataset.tool);
  else acts[pressed.dataset.act]?.();
});

// The start.

const HELP = [["Drag", "grab a thing and pull"], ["V P M G H", "drag, several points, mask, grip, move the view"],
  ["Wheel, two fingers", "zoom"], ["Space and drag", "move the view"], ["Space", "see the picture before"], ["S", "slide between before and after"],
  ["N, T", "another pair of points; select the next point"], ["Arrows", "move the selected point by a pixel (Shift: 10)"],
  ["Enter", "drag the pairs"], ["Delete", "remove the selected pair; clear the mask"], ["Escape", "cancel"], ["Ctrl Z, Ctrl Shift Z", "undo, redo"],
  ["[ ] X B I", "brush: size, erase, box, invert"], ["0 + -", "fit, zoom in, zoom out"]];
$("help").querySelector("dl").append(...HELP.flatMap(([key, text]) =>
  [made("dt", { textContent: key }), made("dd", { textContent: text })]));

async function start() {
  work.start("Loading the model…");
  for (;;) {
    try {
      info = await (await ask("/info")).json();
      break;
    } catch (error) {
      if (error.status && error.status !== 503) return failed(error);
      await new Promise((resolve) => { setTimeout(resolve, 500); });
    }
  }
  work.end();
  $("preset").append(...info.presets.filter(({ name }) => name !== "live").map(({ name, summary }) =>
    made("option", { value: name, textContent: name, title: summary })));
  $("preset").value = info.presets.some(({ name }) => name === localStorage.preset) ? localStorage.preset : "fast";
  button("learn").hidden = !info.personalise;
  $("try").hidden = !info.samples.length;
  $("samples").append(...info.samples.map((sample) => made("li", {}, made("button", {
    onclick: () => openSample(sample), ariaLabel: sample.prompt || sample.name, title: sample.prompt || sample.name,
  }, made("img", { src: address(`/samples/${sample.name}.png`), alt: "" })))));
  const id = sessionStorage.session;
  const known = id && await ask(`/sessions/${encodeURIComponent(id)}`).catch(() => null);
  if (known) await begin("Opening…", async () => known);
  $("welcome").hidden = session !== null;
}

tool("drag");
start();
// For the console, and tests.
globalThis.studio = { canvas, get live() { return live; }, get session() { return session; }, stored: () => stored === null };
