"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const FEW = 500;
  const rows = data.drags.flatMap((drag) =>
    Object.entries(drag.results).map(([contestant, values]) => ({ drag, contestant, values })));
  const columns = [
    { title: "drag", of: (row) => row.drag.name },
    { title: "kind", of: (row) => row.drag.kind },
    { title: "contestant", of: (row) => row.contestant },
    ...data.scores.map((score, place) => ({
      title: score.title, digits: score.digits, of: (row) => row.values[place],
    })),
  ].filter((column) => rows.some((row) => column.of(row) !== null));
  const state = { sorted: null, down: false, whole: false, listed: [], row: null, flip: "before" };

  function made(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  function shown(column, row) {
    const value = column.of(row);
    if (value === null) return "";
    return column.digits === undefined ? value : value.toFixed(column.digits);
  }

  // The list: what is filtered, in which order; rows without a value come last.

  function chosenNames() {
    return new Set([...at("names").querySelectorAll(":checked")].map((box) => box.value));
  }

  function compared(column, down) {
    return (one, other) => {
      const a = column.of(one);
      const b = column.of(other);
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "string"
        ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
      return down ? -order : order;
    };
  }

  function list() {
    const names = chosenNames();
    const kind = at("kind").value;
    const kept = rows.filter((row) =>
      names.has(row.contestant) && (kind === "" || row.drag.kind === kind));
    if (state.sorted) kept.sort(compared(state.sorted, state.down));
    state.listed = state.whole ? kept : kept.slice(0, FEW);
    at("list").tBodies[0].replaceChildren(...state.listed.map(drawnRow));
    at("more").hidden = state.listed.length === kept.length;
    at("count").textContent = kept.length === 0
      ? "No rows: choose a kind and at least one contestant."
      : `${state.listed.length} of ${kept.length} rows`;
    columns.forEach((column, place) => {
      const way = state.down ? "descending" : "ascending";
      at("list").tHead.rows[0].cells[place]
        .setAttribute("aria-sort", column === state.sorted ? way : "none");
    });
  }

  function drawnRow(row) {
    const line = document.createElement("tr");
    line.tabIndex = 0;
    line.append(...columns.map((column) => made("td", shown(column, row))));
    line.addEventListener("click", () => choose(row));
    line.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(row); });
    if (row === state.row) line.className = "chosen";
    return line;
  }

  function sortBy(column) {
    state.down = column === state.sorted && !state.down;
    state.sorted = column;
    list();
  }

  // The viewer: one drag's pictures, flipped through.

  function flips(row) {
    return ["before", ...Object.keys(row.drag.results), "after", "mask"];
  }

  const called = (flip) => ({ before: "source", after: "truth" })[flip] ?? flip;

  function choose(row) {
    state.row = row;
    state.flip = row.contestant;
    state.listed.forEach((each, place) => {
      const line = at("list").tBodies[0].rows[place];
      line.className = each === row ? "chosen" : "";
      if (each === row) line.scrollIntoView({ block: "nearest" });
    });
    at("viewer").hidden = false;
    at("drag").textContent = row.drag.name;
    at("prompt").textContent = `${row.drag.kind}; prompt: "${row.drag.prompt}"`;
    at("flip").replaceChildren(...flips(row).map((flip) => {
      const button = made("button", called(flip), { type: "button" });
      button.addEventListener("click", () => { state.flip = flip; draw(); });
      return button;
    }));
    drawArrows(row.drag);
    draw();
  }

  function draw() {
    const { drag } = state.row;
    const all = flips(state.row);
    const place = all.indexOf(state.flip);
    const parts = [data.pictures, drag.name, `${state.flip}.png`];
    at("picture").src = parts.map(encodeURIComponent).join("/");
    at("picture").alt = `${drag.name}: ${called(state.flip)}`;
    [...at("flip").children].forEach((button, each) => {
      button.setAttribute("aria-pressed", String(each === place));
    });
    at("caption").textContent =
      `${called(state.flip)}, ${place + 1} of ${all.length}${told(drag.results[state.flip])}`;
  }

  function told(values) {
    if (!values) return "";
    const known = data.scores.map((score, place) => [score, values[place]])
      .filter(([score, value]) => value !== null && ["left", "gain_db", "consequence", "seconds"]
        .includes(score.name));
    return known.map(([score, value]) => `; ${score.title} ${value.toFixed(score.digits)}`).join("");
  }

  function drawArrows(drag) {
    const svg = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    const drawn = drag.handles.flatMap(([x, y], place) => {
      const [u, v] = drag.targets[place];
      const line = { x1: x + 0.5, y1: y + 0.5, x2: u + 0.5, y2: v + 0.5 };
      const dot = { r: 2, stroke: "#ffffff", "stroke-width": 0.6 };
      return [
        svg("line", { ...line, stroke: "#ffffff", "stroke-width": 2 }),
        svg("line", { ...line, stroke: "#e12828", "stroke-width": 1 }),
        svg("circle", { ...dot, cx: line.x2, cy: line.y2, fill: "#285aeb" }),
        svg("circle", { ...dot, cx: line.x1, cy: line.y1, fill: "#e12828" }),
      ];
    });
    at("arrows").replaceChildren(...drawn);
  }

  function flipBy(step) {
    const all = flips(state.row);
    state.flip = all[(all.indexOf(state.flip) + step + all.length) % all.length];
    draw();
  }

  function moveBy(step) {
    const place = state.listed.indexOf(state.row) + step;
    if (state.listed[place]) choose(state.listed[place]);
  }

  const KEYS = {
    ArrowLeft: () => flipBy(-1), ArrowRight: () => flipBy(1),
    ArrowUp: () => moveBy(-1), ArrowDown: () => moveBy(1),
  };

  document.addEventListener("keydown", (event) => {
    const taken = event.target.tagName === "SELECT" || event.altKey || event.ctrlKey || event.metaKey;
    if (!state.row || taken || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  // What is there from the start.

  const head = document.createElement("tr");
  head.append(...columns.map((column) => {
    const cell = made("th", "", { scope: "col" });
    const button = made("button", column.title, { type: "button" });
    button.addEventListener("click", () => sortBy(column));
    cell.append(button);
    return cell;
  }));
  at("list").tHead.append(head);
  at("kind").append(made("option", "all", { value: "" }),
    ...data.kinds.map((kind) => made("option", kind, { value: kind })));
  at("names").append(...data.contestants.map(({ name }) => {
    const label = made("label", "");
    const box = made("input", "", { type: "checkbox", value: name });
    box.checked = true;
    label.append(box, ` ${name}`);
    return label;
  }));
  const tickAll = (ticked) => () => {
    at("names").querySelectorAll("input").forEach((box) => { box.checked = ticked; });
    list();
  };
  at("all").addEventListener("click", tickAll(true));
  at("none").addEventListener("click", tickAll(false));
  at("filters").addEventListener("change", list);
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("more").addEventListener("click", () => { state.whole = true; list(); });
  at("drawn").addEventListener("change", () => {
    at("arrows").style.display = at("drawn").checked ? "" : "none";
  });

  // "#kind=boat&only=warp,dragnoise&sort=left&show=1" opens the list so; a link can be passed on.
  const asked = new URLSearchParams(location.hash.slice(1));
  if (data.kinds.includes(asked.get("kind"))) at("kind").value = asked.get("kind");
  if (asked.has("only")) {
    const only = asked.get("only").split(",");
    at("names").querySelectorAll("input").forEach((box) => {
      box.checked = only.includes(box.value);
    });
  }
  const place = data.scores.findIndex((score) => score.name === asked.get("sort"));
  state.sorted = columns.find((column) => place >= 0 && column.title === data.scores[place].title)
    ?? null;
  list();
  if (asked.has("show") && state.listed[Number(asked.get("show")) - 1]) {
    choose(state.listed[Number(asked.get("show")) - 1]);
  }
})();
