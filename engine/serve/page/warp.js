/* The picture under a pointer: a displacement field, and a painter that shows a mesh moved by it.

The field is the engine's (engine/drag/field.py, with its fit "similarity") on a coarse grid of nodes.
That displacement is linear in the handles' ways, so each handle has a coefficient at every node, a
complex number that turns and scales its way: solved once, and a move only sums them up. Where no
mask says what may change, that depends on the ways, and a few sweeps follow every move. */

const NODES = 48; // along the longer side
const SWEEPS = 60;
const SWEEPS_AGAIN = 12;
const OWN = 0.71; // half of a cell's diagonal and a little: in cells, as the next two
const NEAREST = 1e-4;
const STIFF = 1e-2;

/** The motion of every node, and the mesh of a drag. Coordinates are in pixels of the picture. */
export class Field {
  /**
   * handles: [[x, y]]. radius: of what moves about a handle without a grip. mask, grip: what may
   * change, what moves as one piece: (columns, rows) => Uint8Array, or null.
   */
  constructor([width, height], handles, { radius = 24, mask = null, grip = null } = {}) {
    const step = this.step = Math.max(width, height) / NODES;
    this.columns = Math.max(4, Math.round(width / step)) + 1;
    this.rows = Math.max(4, Math.round(height / step)) + 1;
    Object.assign(this, { width, height, handles, radius });
    const count = this.columns * this.rows;
    this.at = Array.from({ length: count }, (_, node) => [
      (node % this.columns) * width / (this.columns - 1), Math.floor(node / this.columns) * height / (this.rows - 1)]);
    this.around = Int32Array.from({ length: 4 * count }, (_, place) => { // its four neighbours, or itself
      const [node, side] = [place >> 2, place & 3];
      const [column, row] = [node % this.columns, Math.floor(node / this.columns)];
      if (side < 2) return node + (side ? +(column + 1 < this.columns) : -(column > 0));
      return node + this.columns * (side & 1 ? +(row + 1 < this.rows) : -(row > 0));
    });
    this.editable = mask && mask(this.columns, this.rows);
    const painted = grip && grip(this.columns, this.rows);
    const reach = Math.max(painted ? 0 : radius, OWN * step) ** 2;
    this.gripped = Uint8Array.from(this.at, ([x, y], node) =>
      painted?.[node] || handles.some(([u, v]) => (x - u) ** 2 + (y - v) ** 2 <= reach) ? 1 : 0);
    this.held = new Float32Array(count); // 1 where it is gripped, 0 where it stays
    this.turns = handles.map(() => [new Float32Array(count), new Float32Array(count)]);
    this.known = this.#known(); // the coefficients where it is gripped
    this.vertices = new Float32Array(5 * count); // x, y, u, v in 0..1, held
    this.#solve(handles, SWEEPS);
  }

  /** Moving least squares (Schaefer et al., 2006): c = w (1 + conj(p) (x - middle) / spread). */
  #known() {
    const { at, handles, gripped, step } = this;
    const known = handles.map(() => [new Float32Array(at.length), new Float32Array(at.length)]);
    const piece = handles.length > 1 ? this.#pieces() : gripped;
    const mine = handles.map(([x, y]) => piece[this.#node(x, y)]);
    at.forEach(([x, y], node) => {
      if (!gripped[node]) return;
      const own = mine.map((each) => each === piece[node]);
      const some = own.some(Boolean);
      const near = handles.map(([u, v], i) =>
        some && !own[i] ? 0 : 1 / ((x - u) ** 2 + (y - v) ** 2 + NEAREST * step * step));
      const sum = near.reduce((one, other) => one + other);
      const mean = (axis) => handles.reduce((total, handle, i) => total + near[i] / sum * handle[axis], 0);
      const [mx, my] = [mean(0), mean(1)];
      const spread = handles.reduce((total, [u, v], i) =>
        total + near[i] / sum * ((u - mx) ** 2 + (v - my) ** 2), STIFF * step * step);
      handles.forEach(([u, v], i) => {
        const [dx, dy, px, py] = [x - mx, y - my, u - mx, v - my];
        known[i][0][node] = near[i] / sum * (1 + (px * dx + py * dy) / spread);
        known[i][1][node] = near[i] / sum * (px * dy - py * dx) / spread;
      });
    });
    return known;
  }

  #node(x, y) {
    return Math.round(y / this.height * (this.rows - 1)) * this.columns + Math.round(x / this.width * (this.columns - 1));
  }

  /** Number the connected pieces of what is gripped. */
  #pieces() {
    const { columns, gripped } = this;
    const piece = new Uint16Array(gripped.length);
    let number = 0;
    gripped.forEach((held, begun) => {
      if (!held || piece[begun]) return;
      piece[begun] = ++number;
      for (const open = [begun]; open.length;) {
        const node = open.pop();
        const column = node % columns;
        for (const down of [-columns, 0, columns]) {
          for (const right of [-1, 0, 1]) {
            const next = node + down + right;
            if (column + right < 0 || column + right >= columns || !gripped[next] || piece[next]) continue;
            piece[next] = number;
            open.push(next);
          }
        }
      }
    });
    return piece;
  }

  /** Let everything be harmonic between what is gripped and what stays; targets say what that is. */
  #solve(targets, sweeps) {
    const { held, turns, known } = this;
    const editable = this.editable ?? this.#near(targets);
    this.#sweep(held, this.gripped, editable, sweeps);
    turns.slice(1).forEach((turn, i) =>
      turn.forEach((values, part) => this.#sweep(values, known[i + 1][part], editable, sweeps)));
    turns[0].forEach((values, part) => { // all together are one
      for (let node = 0; node < values.length; node++) {
        values[node] = part ? 0 : held[node];
        for (let i = 1; i < turns.length; i++) values[node] -= turns[i][part][node];
      }
    });
  }

  /** Successive over-relaxation; across the picture's border nothing flows. */
  #sweep(values, known, editable, sweeps) {
    const { columns, rows, gripped, around } = this;
    const speed = 2 / (1 + Math.sin(Math.PI / Math.max(columns, rows)));
    const free = new Int32Array(values.length);
    let count = 0;
    for (let node = 0; node < values.length; node++) {
      if (!editable[node]) values[node] = 0;
      else if (gripped[node]) values[node] = known[node];
      else free[count++] = node;
    }
    for (let sweep = 0; sweep < sweeps; sweep++) {
      for (let i = 0; i < count; i++) {
        const node = free[i];
        const near = 4 * node;
        const mean = (values[around[near]] + values[around[near + 1]] + values[around[near + 2]] + values[around[near + 3]]) / 4;
        values[node] += speed * (mean - values[node]);
      }
    }
  }

  /** What is nearer to a handle's way than it is long, and at least three radii. */
  #near(targets) {
    const editable = new Uint8Array(this.at.length);
    this.handles.forEach(([x, y], i) => {
      const [wx, wy] = [targets[i][0] - x, targets[i][1] - y];
      const square = wx * wx + wy * wy;
      const reach = Math.max(square, (3 * this.radius) ** 2);
      for (let node = 0; node < editable.length; node++) {
        const [dx, dy] = [this.at[node][0] - x, this.at[node][1] - y];
        const share = Math.min(1, Math.max(0, (dx * wx + dy * wy) / Math.max(square, 1e-6)));
        if ((dx - share * wx) ** 2 + (dy - share * wy) ** 2 <= reach) editable[node] = 1;
      }
    });
    return editable;
  }

  /**
   * The mesh, where a picture that shows the handles at `from` shows them at `to`.
   * A model's frame is moved on by what is left of the way; the source by all of it.
   */
  mesh(from, to) {
    if (!this.editable) this.#solve(to, SWEEPS_AGAIN);
    const { at, vertices, held, width, height } = this;
    for (let node = 0, place = 0; node < held.length; node++, place += 5) {
      vertices[place] = vertices[place + 2] = at[node][0] / width;
      vertices[place + 1] = vertices[place + 3] = at[node][1] / height;
      vertices[place + 4] = Math.min(1, Math.max(0, held[node]));
    }
    [to, from].forEach((targets, end) => this.handles.forEach((handle, i) => {
      const [right, down] = [targets[i][0] - handle[0], targets[i][1] - handle[1]];
      const [real, imaginary] = this.turns[i];
      if (!right && !down) return;
      for (let node = 0, place = 2 * end; node < held.length; node++, place += 5) {
        vertices[place] += (real[node] * right - imaginary[node] * down) / width;
        vertices[place + 1] += (real[node] * down + imaginary[node] * right) / height;
      }
    }));
    return this;
  }
}

const VERTEX = `#version 300 es
layout(location = 0) in vec2 place;
layout(location = 1) in vec2 texel;
layout(location = 2) in float weight;
uniform vec4 view; // to clip space: scale, then offset
out vec2 seen, over;
void main() {
  seen = texel;
  over = place;
  gl_Position = vec4(place * view.xy + view.zw, 0.9 - 0.9 * weight, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D picture, mask;
uniform bool masked;
in vec2 seen, over;
out vec4 colour;
void main() {
  if (masked && texture(mask, over).a < 0.5) discard;
  vec2 size = vec2(textureSize(picture, 0));
  vec2 at = seen * size - 0.5;
  vec2 part = fract(at); // shown large, a small picture is crisper so than between its pixels
  vec2 soft = mix(part, part * part * (3.0 - 2.0 * part), clamp(1.0 - fwidth(at.x), 0.0, 1.0));
  colour = vec4(textureGrad(picture, (floor(at) + 0.5 + soft) / size, dFdx(seen), dFdy(seen)).rgb, 1.0);
}`;

const QUAD = new Float32Array([0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0]);

/**
 * A painter of a canvas: WebGL2 where there is one, else two dimensions.
 *
 * load(name, source) keeps a picture; paint(scene) shows one. A scene: {view: {scale, x, y} in the
 * canvas's pixels, size: the picture's, shown: name, mesh: Field | null, masked: boolean,
 * split: {name, at} | null}: left of `at` (canvas pixels) another picture is seen.
 */
export function painter(canvas, { flat = false } = {}) {
  const gl = flat ? null : canvas.getContext("webgl2", { antialias: true, alpha: true });
  return gl ? new GlPainter(gl) : new FlatPainter(canvas.getContext("2d"));
}

class GlPainter {
  constructor(gl) {
    this.gl = gl;
    this.sources = new Map();
    this.#begin();
    gl.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    gl.canvas.addEventListener("webglcontextrestored", () => {
      this.#begin();
      for (const [name, source] of this.sources) this.load(name, source);
      this.onrestored?.();
    });
  }

  get largest() { return this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE); }

  #begin() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    this.uniforms = Object.fromEntries(["view", "mask", "masked"]
      .map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.uniform1i(this.uniforms.mask, 1);
    this.textures = new Map();
    this.quad = this.#vertices(4, gl.STATIC_DRAW, QUAD);
    this.mesh = null;
    gl.depthFunc(gl.LEQUAL);
  }

  #vertices(count, usage, values) {
    const { gl } = this;
    const array = gl.createVertexArray();
    const buffer = gl.createBuffer();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values ?? 20 * count, usage);
    [[2, 0], [2, 8], [1, 16]].forEach(([parts, offset], place) => {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, parts, gl.FLOAT, false, 20, offset);
    });
    return { array, buffer };
  }

  /** Two triangles a cell of the grid, drawn anew only where the grid has another form. */
  #grid(field) {
    const { gl } = this;
    const form = `${field.columns}x${field.rows}`;
    if (this.mesh?.form === form) return;
    this.mesh = { ...this.#vertices(field.columns * field.rows, gl.DYNAMIC_DRAW), form };
    const corners = [];
    for (let row = 0; row + 1 < field.rows; row++) {
      for (let column = 0; column + 1 < field.columns; column++) {
        const node = row * field.columns + column;
        const below = node + field.columns;
        corners.push(node, node + 1, below, below, node + 1, below + 1);
      }
    }
    this.mesh.count = corners.length;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint16Array(corners), gl.STATIC_DRAW);
  }

  load(name, source) {
    const { gl } = this;
    this.sources.set(name, source);
    if (gl.isContextLost()) return;
    const known = this.textures.get(name) ?? { texture: gl.createTexture() };
    this.textures.set(name, known);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, known.texture);
    const same = known.width === source.width && known.height === source.height;
    if (same) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, gl.RGBA, gl.UNSIGNED_BYTE, source);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, source);
    Object.assign(known, { width: source.width, height: source.height });
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) {
      gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    }
    const large = source.width > 600 || source.height > 600;
    if (large) gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, large ? gl.LINEAR_MIPMAP_LINEAR : gl.LINEAR);
  }

  paint({ view, size, shown, mesh, masked, split }) {
    const { gl, uniforms } = this;
    const { width, height } = gl.canvas;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (!this.textures.has(shown)) return;
    gl.uniform4f(uniforms.view, 2 * size[0] * view.scale / width, -2 * size[1] * view.scale / height,
      2 * view.x / width - 1, 1 - 2 * view.y / height);
    this.#quad(shown);
    if (mesh) {
      this.#grid(mesh);
      gl.bindVertexArray(this.mesh.array);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.mesh.buffer);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, mesh.vertices);
      gl.enable(gl.DEPTH_TEST);
      this.#use(shown, masked);
      gl.drawElements(gl.TRIANGLES, this.mesh.count, gl.UNSIGNED_SHORT, 0);
      gl.disable(gl.DEPTH_TEST);
    }
    if (split && this.textures.has(split.name)) {
      gl.enable(gl.SCISSOR_TEST);
      gl.scissor(0, 0, Math.max(0, Math.round(split.at)), height);
      this.#quad(split.name);
      gl.disable(gl.SCISSOR_TEST);
    }
  }

  #use(name, masked) {
    const { gl, uniforms } = this;
    const { texture } = this.textures.get(name);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, masked ? this.textures.get("mask").texture : null);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.uniform1i(uniforms.masked, masked ? 1 : 0);
  }

  #quad(name) {
    this.gl.bindVertexArray(this.quad.array);
    this.#use(name, false);
    this.gl.drawArrays(this.gl.TRIANGLE_STRIP, 0, 4);
  }
}

/** Where there is no WebGL2: the cells of the grid as rectangles, the least gripped first. */
class FlatPainter {
  constructor(context) {
    this.context = context;
    this.sources = new Map();
    this.largest = 8192;
  }

  load(name, source) { this.sources.set(name, source); }

  paint({ view, size, shown, mesh, split }) {
    const { context } = this;
    const { width, height } = context.canvas;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    const source = this.sources.get(shown);
    if (!source) return;
    context.setTransform(size[0] * view.scale, 0, 0, size[1] * view.scale, view.x, view.y);
    context.drawImage(source, 0, 0, 1, 1);
    if (mesh) this.#cells(mesh, source);
    if (!split || !this.sources.has(split.name)) return;
    context.save();
    context.beginPath();
    context.rect(0, 0, (split.at - view.x) / (size[0] * view.scale), 1);
    context.clip();
    context.drawImage(this.sources.get(split.name), 0, 0, 1, 1);
    context.restore();
  }

  #cells({ columns, rows, vertices }, source) {
    const cells = [];
    for (let row = 0; row + 1 < rows; row++) {
      for (let column = 0; column + 1 < columns; column++) {
        const first = 5 * (row * columns + column);
        const last = first + 5 * (columns + 1);
        if (vertices[first + 4] + vertices[last + 4] > 0.02) cells.push([first, last]);
      }
    }
    cells.sort((one, other) => vertices[one[0] + 4] - vertices[other[0] + 4]);
    const box = ([first, last], part) => {
      const [x, y] = [vertices[first + part], vertices[first + part + 1]];
      return [x, y, Math.max(1e-4, vertices[last + part] - x), Math.max(1e-4, vertices[last + part + 1] - y)];
    };
    for (const cell of cells) {
      const [u, v, across, down] = box(cell, 2);
      const [w, h] = [source.width, source.height];
      this.context.drawImage(source, u * w, v * h, across * w, down * h, ...box(cell, 0));
    }
  }
}
