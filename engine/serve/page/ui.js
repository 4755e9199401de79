/* The page's own parts: icons, toasts, the bar of work, theme, questions. They know no session. */

export const $ = (id) => document.getElementById(id);

export const made = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};

const ICONS = {
  open: "M3 6.5A1.5 1.5 0 0 1 4.5 5H9l2 2.5h8.5A1.5 1.5 0 0 1 21 9v9a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 18z",
  undo: "M8 5 4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11h-3",
  redo: "m16 5 4 4-4 4M20 9H10a5.5 5.5 0 0 0 0 11h3",
  compare: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12M12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6",
  split: "M12 3v18M4 6h5M4 18h5M15 6h5v12h-5M4 6v12",
  save: "M12 4v11m-4.5-4.5L12 15l4.5-4.5M4.5 19.5h15",
  more: "M5 11v2m7-2v2m7-2v2",
  drag: "M8 12.5V6a1.5 1.5 0 0 1 3 0v5-6.5a1.5 1.5 0 0 1 3 0V11 6.5a1.5 1.5 0 0 1 3 0V14c0 4-2 6.5-5.5 6.5-3 0-4.5-1.5-6-4l-2-3.5c-.7-1.3.8-2.5 2-1.5z",
  pairs: "M7 17 17 7m-6 0h6v6M5 17a2 2 0 1 0 4 0 2 2 0 0 0-4 0",
  mask: "M4 8V5.5A1.5 1.5 0 0 1 5.5 4H8m8 0h2.5A1.5 1.5 0 0 1 20 5.5V8m0 8v2.5a1.5 1.5 0 0 1-1.5 1.5H16m-8 0H5.5A1.5 1.5 0 0 1 4 18.5V16m4-4a4 4 0 1 0 8 0 4 4 0 0 0-8 0",
  grip: "M14.5 4.5 19.5 9.5 10 19H5v-5zM12 7l5 5",
  pan: "M12 3v18M3 12h18M9.5 5.5 12 3l2.5 2.5m-5 13L12 21l2.5-2.5M5.5 9.5 3 12l2.5 2.5m13-5L21 12l-2.5 2.5",
  fit: "M4 9V4h5m6 0h5v5m0 6v5h-5m-6 0H4v-5",
  erase: "m8.5 19-4-4a1.5 1.5 0 0 1 0-2l8-8a1.5 1.5 0 0 1 2 0l4.5 4.5a1.5 1.5 0 0 1 0 2L11.5 19zM8.5 9l6.5 6.5M8 19h12",
  box: "M5 5h14v14H5z",
  invert: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  clear: "M5 7h14M10 7V4.5h4V7m-7.5 0 1 12.5h9l1-12.5",
};

/** Give every button its icon; what it says becomes its name and, with its key, its tip. */
export function dress(root = document) {
  for (const button of root.querySelectorAll("header [data-act], nav [data-act], nav [data-tool], #brush button")) {
    const icon = ICONS[button.dataset.act ?? button.dataset.tool];
    if (!icon) continue;
    const name = button.textContent;
    button.ariaLabel = name;
    button.title = button.dataset.key ? `${name} (${button.dataset.key})` : name;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.ariaHidden = "true";
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", icon);
    svg.append(path);
    button.replaceChildren(svg);
  }
  root.addEventListener("click", ({ target }) => {
    for (const menu of root.querySelectorAll(".menu[open]")) {
      if (!menu.contains(target) || target.closest(".menu button")) menu.open = false;
    }
  });
}

/** Say something; what went wrong stays longer. action: [text, call]. */
export function toast(text, { bad = false, action = null } = {}) {
  const line = made("p", { className: bad ? "bad" : "" }, made("span", { textContent: text }));
  if (action) line.append(made("button", { textContent: action[0], onclick: () => { line.remove(); action[1](); } }));
  line.append(made("button", { textContent: "\u00d7", ariaLabel: "Close", onclick: () => line.remove() }));
  $("toasts").replaceChildren(...[...$("toasts").children].filter((each) => each.textContent !== line.textContent).slice(-2), line);
  if (!action) setTimeout(() => line.remove(), bad ? 9000 : 3500);
}

export const failed = (error) => { if (error.code !== "cancelled") toast(error.message, { bad: true }); };

const STAGES = { encode: "Reading the picture", invert: "Looking at the picture", drag: "Dragging", propagate: "Refining", denoise: "Refining", decode: "Refining", personalise: "Learning the picture" };

/** The bar of what takes a while: what it is, how far, how long it will take. */
export class Work {
  #bar;
  #began = 0;
  #stage = null;

  constructor(root = document) { this.#bar = root.getElementById("work"); }

  start(text, cancel = false) {
    this.#stage = null;
    this.#bar.hidden = false;
    this.#bar.querySelector("button").hidden = !cancel;
    this.#say(text);
  }

  progress({ stage, done, of }) {
    const now = performance.now();
    if (stage !== this.#stage) [this.#stage, this.#began] = [stage, now];
    const left = done > 0 ? (now - this.#began) / done * (of - done) / 1000 : 0;
    const time = left < 1.5 ? "" : left < 90 ? `, ${Math.round(left)} s left` : `, ${Math.round(left / 60)} min left`;
    this.#say(`${STAGES[stage] ?? stage} ${Math.round(100 * done / Math.max(1, of))} %${time}`, done / Math.max(1, of));
  }

  end() { this.#bar.hidden = true; }

  #say(text, share) {
    this.#bar.querySelector("span").textContent = text;
    const bar = this.#bar.querySelector("progress");
    if (share === undefined) bar.removeAttribute("value");
    else bar.value = share;
  }
}

/** Light, dark, or as the device has it. */
export function theme(changed) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = () => {
    document.documentElement.classList.toggle("dark", (localStorage.theme ?? (dark.matches ? "dark" : "light")) === "dark");
    document.documentElement.style.colorScheme = document.documentElement.classList.contains("dark") ? "dark" : "light";
    changed();
  };
  dark.addEventListener("change", set);
  set();
  return () => {
    localStorage.theme = document.documentElement.classList.contains("dark") ? "light" : "dark";
    set();
  };
}

export function sure(text) {
  $("sure").querySelector("p").textContent = text;
  $("sure").returnValue = "";
  $("sure").showModal();
  return new Promise((resolve) => { $("sure").onclose = () => resolve($("sure").returnValue === "yes"); });
}

export function saveAs(blob, name) {
  const link = made("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or no secure context
    const area = made("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("Copied");
}

/** A film of pictures, as far as the browser writes one: drawn and recorded as it plays. */
export async function film(blobs, [width, height]) {
  const type = ["video/mp4", "video/webm"].find((each) => globalThis.MediaRecorder?.isTypeSupported(each));
  if (!type) throw new Error("This browser records no films.");
  const canvas = made("canvas", { width: width + width % 2, height: height + height % 2 });
  const context = canvas.getContext("2d");
  const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 8e6 });
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.start();
  const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
  for (const [place, blob] of blobs.entries()) {
    context.drawImage(await createImageBitmap(blob), 0, 0, canvas.width, canvas.height);
    await pause(place === 0 || place === blobs.length - 1 ? 900 : 90);
  }
  await new Promise((resolve) => { recorder.onstop = resolve; recorder.stop(); });
  return new File(parts, `way.${type.slice(6)}`, { type });
}
