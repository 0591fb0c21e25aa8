// The transposed convolution, number by number: an input, a kernel and the output that they make, all in the page.
// An export of one function; book/extensions/dcgan_transposed_convolution.py makes a classic script of it, which mounts every element of class dcgan-transposed_convolution.
// Sections: engine, numbers to begin with, settings and address, words, grids, the control, mounting.
// Grids are lists of rows. Places count from 0 in the code and from 1 in what a reader sees.
// Letters: i, j row and column of the input; k, l of the kernel; o, p of the output (padding has its whole name).

// --- Engine ---

const LIMITS = { kernel_size: [2, 5], stride: [1, 3], padding: [0, 2], output_padding: [0, 2], size: [2, 5] };
const DEFAULTS = { kernel_size: 5, stride: 2, padding: 2, output_padding: 1, size: 4 };

/** Return the side of the output, as PyTorch's ConvTranspose2d has it. */
function outputSize({ size, kernel_size, stride, padding, output_padding }) {
  return (size - 1) * stride - 2 * padding + kernel_size + output_padding;
}

/** Return settings that are possible: each within its limits, output padding below the stride, an output of at least one pixel. */
function tidy(settings, instead = DEFAULTS) {
  const kept = {};
  for (const [key, [low, high]] of Object.entries(LIMITS)) {
    const value = Number(settings[key] ?? NaN);
    kept[key] = Number.isFinite(value) ? limit(Math.round(value), low, high) : instead[key];
  }
  kept.output_padding = Math.min(kept.output_padding, kept.stride - 1);
  while (outputSize(kept) < 1) kept.padding -= 1;
  return kept;
}

const grid = (side, fill) => Array.from({ length: side }, (_, row) => Array.from({ length: side }, (_, column) => fill(row, column)));

/** Return the block that an input pixel stamps: its first row and column in the output, negative where padding crops it. */
const stampStart = ({ stride, padding }, i, j) => [i * stride - padding, j * stride - padding];

/** Compute the output by stamping: each input pixel adds its number times the kernel to a block of the output. */
function transposedConvolution(x, w, settings) {
  const side = outputSize(settings), y = grid(side, () => 0);
  for (let i = 0; i < settings.size; i++)
    for (let j = 0; j < settings.size; j++) {
      const [top, left] = stampStart(settings, i, j);
      for (let k = 0; k < settings.kernel_size; k++)
        for (let l = 0; l < settings.kernel_size; l++) {
          const o = top + k, p = left + l;
          const isCropped = o < 0 || p < 0 || o >= side || p >= side;
          if (!isCropped) y[o][p] += x[i][j] * w[k][l];
        }
    }
  return y;
}

/** Compute one output pixel by gathering: return the input pixel and the kernel cell of each product in its sum. */
function products(settings, o, p) {
  const found = [], { size, kernel_size } = settings;
  for (let i = 0; i < size; i++)
    for (let j = 0; j < size; j++) {
      const [top, left] = stampStart(settings, i, j), k = o - top, l = p - left;
      if (k >= 0 && k < kernel_size && l >= 0 && l < kernel_size) found.push({ i, j, k, l });
    }
  return found;
}

/** Return how many input pixels reach each output pixel. */
function overlapCounts(settings) {
  return grid(outputSize(settings), (o, p) => products(settings, o, p).length);
}

/** Return how many kernel rows fall on an output row away from the edges: the fewest and the most. */
function tapsPerAxis({ kernel_size, stride }) {
  return [Math.floor(kernel_size / stride), Math.ceil(kernel_size / stride)];
}

// --- Numbers to begin with ---

const INPUTS = { pattern: "pattern", ones: "ones", impulse: "one pixel" };
const KERNELS = { bilinear: "bilinear", ones: "ones", corners: "corner marks", random: "random" };

function startInput(kind, size) {
  const middle = Math.floor((size - 1) / 2);
  if (kind === "ones") return grid(size, () => 1);
  if (kind === "impulse") return grid(size, (i, j) => Number(i === middle && j === middle));
  return grid(size, (i, j) => [1, 2, 1, 0][(j - i + 4 * size) % 4]);
}

/** Return a kernel; "random-7" is the random one of seed 7. The bilinear one enlarges by the stride, if it is wide enough for that. */
function startKernel(kind, { kernel_size: side, stride }) {
  const last = side - 1, [name, seed] = kind.split("-");
  if (name === "ones") return grid(side, () => 1);
  if (name === "corners") return grid(side, (k, l) => (k % last === 0 && l % last === 0 ? 1 + 2 * (k / last) + l / last : 0));
  if (name === "random") {
    const draw = uniform(Number(seed) || 1);
    return grid(side, () => Math.round(20 * draw() - 10) / 10);
  }
  const tent = (k) => Math.max(0, 1 - Math.abs(k - last / 2) / stride);
  return grid(side, (k, l) => tent(k) * tent(l));
}

/** Return a source of numbers from 0 to 1, the same for each seed everywhere (mulberry32). */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Return edited numbers on a grid of another size: what lay inside stays, new cells hold 0. */
const resized = (old, side) => grid(side, (row, column) => old[row]?.[column] ?? 0);

// --- Settings and address ---

const PRESETS = [
  { name: "DCGAN", says: "kernel 5, stride 2, padding 2, output padding 1", settings: { kernel_size: 5, stride: 2, padding: 2, output_padding: 1 } },
  { name: "PyTorch tutorial", says: "kernel 4, stride 2, padding 1", settings: { kernel_size: 4, stride: 2, padding: 1, output_padding: 0 } },
  { name: "Kernel 3, stride 2", says: "no padding", settings: { kernel_size: 3, stride: 2, padding: 0, output_padding: 0 } },
];
const VIEWS = { values: "values", counts: "overlap counts" };
const MOST = 9; // of a number that a reader types, either side of 0
const STEP = 0.5;

const entries = () => location.hash.slice(1).split("&").filter(Boolean);

/** Write a state: only what differs from the one that the page begins with. Typed numbers are whole hundredths. */
function encode(state, initial) {
  const numbers = (rows) => rows.flat().map((value) => Math.round(100 * value)).join(",");
  const pairs = Object.keys(DEFAULTS).filter((key) => state.settings[key] !== initial[key]).map((key) => `${key}:${state.settings[key]}`);
  if (state.inputKind !== "pattern") pairs.push(`input:${state.inputKind === "own" ? numbers(state.x) : state.inputKind}`);
  if (state.kernelKind !== "bilinear") pairs.push(`kernel:${state.kernelKind === "own" ? numbers(state.w) : state.kernelKind}`);
  if (state.view !== "values") pairs.push(`view:${state.view}`);
  return pairs.join(";");
}

/** Read what `encode` wrote; what is broken or unknown is left out. */
function decode(text, initial) {
  const found = Object.fromEntries(text.split(";").map((pair) => pair.split(":")));
  const settings = tidy({ ...initial, ...found }, initial);
  const state = { settings, inputKind: "pattern", kernelKind: "bilinear", view: Object.hasOwn(VIEWS, found.view) ? found.view : "values" };
  if (Object.hasOwn(INPUTS, found.input)) state.inputKind = found.input;
  if (Object.hasOwn(KERNELS, found.kernel?.replace(/-\d+$/, ""))) state.kernelKind = found.kernel;
  state.x = startInput(state.inputKind, settings.size);
  state.w = startKernel(state.kernelKind, settings);
  for (const [key, kind, side, written] of [["x", "inputKind", settings.size, found.input], ["w", "kernelKind", settings.kernel_size, found.kernel]]) {
    const numbers = (written ?? "").split(",").map((value) => Number(value) / 100);
    if (numbers.length !== side * side || !numbers.every((value) => Math.abs(value) <= MOST)) continue;
    state[key] = grid(side, (row, column) => numbers[row * side + column]);
    state[kind] = "own";
  }
  return state;
}

function readAddress(space, initial) {
  const part = entries().find((entry) => entry.startsWith(`${space}=`)) ?? "";
  return decode(part.slice(space.length + 1), initial);
}

/** Return the page's address with one control's state in place of the old. */
function writeAddress(space, text) {
  const parts = entries().filter((entry) => !entry.startsWith(`${space}=`) && !entry.startsWith("at="));
  if (text) parts.push(`${space}=${text}`);
  return location.href.split("#")[0] + (parts.length ? `#${parts.join("&")}` : "");
}

// --- Words ---

const minus = (text) => text.replace("-", "−");
/** Write a number in at most `places` decimals, without zeros at its end. */
const written = (value, places = 3) => minus(String(Number(value.toFixed(places)) || 0));
/** Write a number for a cell, which has room for about four characters. */
const short = (value) => written(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
const factor = (value) => (value < 0 ? `(${written(value)})` : written(value));
const place = (row, column) => `row ${row + 1}, column ${column + 1}`;
const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const isRounded = (value) => Number(value.toFixed(3)) !== Number(value.toFixed(9));

function sizeFormula({ size, kernel_size, stride, padding, output_padding }) {
  return `(${size} − 1) × ${stride} − 2 × ${padding} + ${kernel_size} + ${output_padding} = ${outputSize({ size, kernel_size, stride, padding, output_padding })}`;
}

/** Say whether all output pixels away from the edges are reached by the same number of inputs, and why. */
function evenness(settings) {
  const [fewest, most] = tapsPerAxis(settings), { kernel_size, stride } = settings;
  if (fewest === most) return { isEven: true, text: `${kernel_size} is a multiple of ${stride}, so away from the edges ${count(fewest * fewest, "input reaches", "inputs reach")} every output pixel.` };
  const counts = [...new Set([fewest * fewest, fewest * most, most * most])];
  const turns = `${counts.slice(0, -1).join(", ")} or ${counts.at(-1)}`;
  return { isEven: false, text: `${kernel_size} is not a multiple of ${stride}, so rows and columns take turns of ${fewest} and ${most} kernel ${most === 1 ? "cell" : "cells"}, and away from the edges ${turns} inputs reach an output pixel: a checkerboard.` };
}

// --- Grids ---

const DIRECTIONS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** A square of cells that hold numbers; before and after are the widths of the margins that padding crops. */
class Grid {
  constructor(where, name) {
    Object.assign(this, { where, name, cells: [], margin: [], active: [0, 0], shape: "" });
    this.size = el("span", { class: "tc-size" });
    this.squares = el("div", { class: "tc-squares", role: "grid" });
    this.root = el("div", { class: `tc-grid tc-${where}` }, el("p", { class: "tc-caption" }, el("strong", {}, name), " ", this.size), el("div", { class: "tc-frame" }, this.squares));
  }

  /** Make the cells anew where the size is another. */
  resize(side, before = 0, after = 0) {
    const shape = [side, before, after].join();
    this.size.textContent = `${side} × ${side}`;
    this.squares.setAttribute("aria-label", `${this.name}, ${side} by ${side}`);
    this.active = this.active.map((at) => Math.min(at, side - 1));
    if (shape === this.shape) return;
    Object.assign(this, { shape, side, before, cells: [], margin: [] });
    const rows = [];
    for (let row = -before; row < side + after; row++) {
      const isOutside = row < 0 || row >= side, squares = [];
      for (let column = -before; column < side + after; column++) {
        if (isOutside || column < 0 || column >= side) {
          const node = el("div", { class: "tc-cropped", "aria-hidden": "true" });
          this.margin.push({ node, row, column });
          squares.push(node);
        } else squares.push(this.cell(row, column));
      }
      rows.push(el("div", { class: "tc-row", ...(isOutside ? { "aria-hidden": "true" } : { role: "row" }) }, ...squares));
    }
    this.squares.replaceChildren(...rows);
    const across = side + before + after;
    this.root.style.setProperty("--across", across);
  }

  cell(row, column) {
    const number = el("span", { class: "tc-number" }), mark = el("span", { class: "tc-mark", "aria-hidden": "true" });
    const node = el("div", { class: "tc-cell", role: "gridcell", tabindex: -1, "data-row": row, "data-column": column }, mark, number);
    (this.cells[row] ??= [])[column] = { node, number, mark };
    return node;
  }

  /** Return the place of the cell that an event came from, or null. */
  placeOf(event) {
    const node = event.target.closest?.(".tc-cell");
    return node ? [Number(node.dataset.row), Number(node.dataset.column)] : null;
  }

  focus() {
    const [row, column] = this.active;
    this.cells[row][column].node.focus();
  }

  /** Show numbers as text and as a tint. look(row, column) tells how a cell stands out: { kind, mark, edges }. */
  show(rows, look, say) {
    const largest = Math.max(...rows.flat().map(Math.abs)) || 1;
    this.cells.forEach((line, row) => line.forEach(({ node, number, mark }, column) => {
      const value = rows[row][column], { kind = "", mark: letter = "", edges = "" } = look(row, column);
      const share = (100 * Math.abs(value)) / largest, quiet = kind === "quiet" ? 0.3 * share : share;
      const isActive = row === this.active[0] && column === this.active[1];
      node.className = `tc-cell tc-cell-${kind || "plain"}${value < 0 ? " tc-negative" : ""}${quiet > 65 ? " tc-strong" : ""}`;
      node.style.setProperty("--share", `${quiet > 65 ? Math.max(quiet, 72) : Math.min(quiet, 61)}%`); // between them neither black nor white is easy to read
      node.style.setProperty("--edges", edges || "2px");
      node.tabIndex = isActive ? 0 : -1;
      node.setAttribute("aria-selected", kind === "chosen");
      node.setAttribute("aria-label", say(row, column, value));
      number.textContent = short(value);
      mark.dataset.mark = letter; // shown by the style sheet, so that it is no part of the name
    }));
  }
}

// --- The control ---

const act = (text, onclick, attributes = {}) => button(text, onclick, { class: "tc-button", ...attributes });

function slider(text, key, onmove) {
  const [min, max] = LIMITS[key];
  const box = el("input", { type: "range", min, max, step: 1, class: "tc-range", oninput: () => onmove({ [key]: Number(box.value) }) });
  const shown = el("span", { class: "tc-value", "aria-hidden": "true" }); // the slider itself says it
  const row = el("label", { class: "tc-field" }, el("span", {}, text), shown, box);
  return { row, show(value, most = max) {
    box.max = most;
    box.disabled = most === min;
    box.value = value;
    shown.textContent = value;
  } };
}

let made = 0; // controls of a page, for names that no two share

class TransposedConvolution {
  /** settings: what to start from; space: the control's name in the page's address, if it keeps its state there; changed: is told each change of the settings. */
  constructor(root, settings, { space = "", changed = () => {} } = {}) {
    made += 1;
    this.name = `tc${made}`;
    this.initial = tidy({ ...DEFAULTS, ...settings });
    Object.assign(this, { root, space, changed, hovered: null }, space ? readAddress(space, this.initial) : decode("", this.initial));
    this.choose("output", this.middle());
    this.build();
    this.show();
    root.addEventListener("keydown", (event) => event.stopPropagation()); // or Lab and the book's theme take the arrow keys
    if (space) addEventListener("hashchange", (this.onhash = () => {
      Object.assign(this, readAddress(space, this.initial));
      this.show();
    }));
  }

  destroy() {
    clearTimeout(this.writing);
    removeEventListener("hashchange", this.onhash);
  }

  middle() {
    const at = Math.floor((outputSize(this.settings) - 1) / 2);
    return [at, at];
  }

  choose(where, [row, column]) {
    this.chosen = { where, row, column };
  }

  // --- what is on the page ---
  build() {
    this.summary = el("p", { class: "tc-summary", id: `${this.name}-summary` });
    this.presets = PRESETS.map((preset) => act("", () => this.set(preset.settings), { class: "tc-button tc-preset" }));
    this.presets.forEach((one, i) => one.append(el("strong", {}, PRESETS[i].name), el("span", {}, PRESETS[i].says)));
    const set = (changes) => this.set(changes);
    this.sliders = { size: slider("input size", "size", set), kernel_size: slider("kernel size", "kernel_size", set), stride: slider("stride", "stride", set), padding: slider("padding", "padding", set), output_padding: slider("output padding", "output_padding", set) };
    this.formula = el("output", { class: "tc-formula" });
    this.even = el("p", { class: "tc-even" });

    const kinds = (names, take) => Object.entries(names).map(([kind, text]) => act(text, () => take(kind), { "data-kind": kind }));
    this.inputs = kinds(INPUTS, (kind) => this.take({ inputKind: kind, x: startInput(kind, this.settings.size) }));
    this.kernels = kinds(KERNELS, (kind) => {
      const seed = kind === "random" ? `-${1 + (Number(this.kernelKind.split("-")[1]) || 0)}` : "";
      this.take({ kernelKind: kind + seed, w: startKernel(kind + seed, this.settings) });
    });
    this.views = kinds(VIEWS, (view) => this.take({ view }));

    this.grids = { input: new Grid("input", "Input"), kernel: new Grid("kernel", "Kernel"), output: new Grid("output", "Output") };
    for (const each of Object.values(this.grids)) this.listen(each);
    const row = (text, buttons) => el("div", { class: "tc-tools", role: "group", "aria-label": text }, ...buttons);
    this.grids.input.root.append(row("Numbers of the input", this.inputs));
    this.grids.kernel.root.append(row("Numbers of the kernel", this.kernels));
    this.grids.output.root.querySelector(".tc-caption").after(row("What the output shows", this.views));
    this.cropped = el("p", { class: "tc-note" });
    this.grids.output.root.append(this.cropped);

    this.numberName = el("span", {});
    this.number = el("input", { id: `${this.name}-number`, type: "text", inputmode: "decimal", class: "tc-entry", autocomplete: "off", maxlength: 6 });
    this.number.addEventListener("change", () => this.type());
    this.number.addEventListener("keydown", (event) => this.keyInField(event));
    this.editor = el("div", { class: "tc-editor" }, el("label", { for: `${this.name}-number` }, this.numberName), this.number,
      act("−", () => this.nudge(-STEP), { "aria-label": `Lower by ${STEP}` }), act("+", () => this.nudge(STEP), { "aria-label": `Raise by ${STEP}` }));
    this.hint = el("p", { class: "tc-note" }, "Choose a number of the input or of the kernel to change it.");
    this.sum = el("div", { class: "tc-sum", "aria-live": "polite" });

    const about = el("details", { class: "tc-about" }, el("summary", {}, "How to read and move it"),
      el("p", {}, "Choose an output pixel to see which products make it: equal letters join an input pixel with the kernel cell that it is multiplied by. Choose an input pixel to see the block that it stamps on the output, and a kernel cell to see where its one weight is used."),
      el("p", {}, `With the keyboard: Tab goes from grid to grid, the arrow keys from cell to cell. On the input and the kernel, type a number or press Shift with the up or down arrow to change it by ${STEP}.`));
    const left = el("div", { class: "tc-left" }, this.grids.input.root, this.grids.kernel.root), edit = el("div", { class: "tc-edit" }, this.editor, this.hint);
    this.left = left;
    this.root.replaceChildren(el("div", { class: "tc", role: "group", "aria-label": "A transposed convolution, number by number", "aria-describedby": this.summary.id }, this.summary,
      el("div", { class: "tc-presets", role: "group", "aria-label": "Settings that are in use" }, ...this.presets),
      el("div", { class: "tc-settings", role: "group", "aria-label": "Settings" }, ...Object.values(this.sliders).map((one) => one.row)),
      el("div", { class: "tc-size-line" }, el("span", { class: "tc-formula-name" }, "output side = (input − 1) × stride − 2 × padding + kernel + output padding"), this.formula),
      el("div", { class: "tc-main" }, left, this.grids.output.root, edit),
      this.sum, this.even, about));
  }

  listen(each) {
    const { squares, where } = each, pick = (at) => {
      each.active = at;
      this.hovered = null;
      this.choose(where, at);
      this.show();
    };
    squares.addEventListener("click", (event) => {
      const at = each.placeOf(event);
      if (at) pick(at);
    });
    squares.addEventListener("focusin", (event) => {
      const at = each.placeOf(event);
      if (at && !this.isChosen(where, ...at)) pick(at);
    });
    squares.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "mouse") return;
      const at = each.placeOf(event);
      this.hovered = at && { where, row: at[0], column: at[1] };
      this.show();
    });
    squares.addEventListener("pointerleave", () => {
      this.hovered = null;
      this.show();
    });
    squares.addEventListener("keydown", (event) => this.keyInGrid(event, each, pick));
  }

  keyInGrid(event, each, pick) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [row, column] = each.active, last = each.side - 1, isEditable = each.where !== "output";
    if (event.shiftKey && isEditable && (event.key === "ArrowUp" || event.key === "ArrowDown")) this.nudge(event.key === "ArrowUp" ? STEP : -STEP);
    else if (event.key in DIRECTIONS) {
      const [down, right] = DIRECTIONS[event.key];
      pick([limit(row + down, 0, last), limit(column + right, 0, last)]);
      each.focus();
    } else if (event.key === "Home" || event.key === "End") {
      pick([row, event.key === "Home" ? 0 : last]);
      each.focus();
    } else if (isEditable && /^([-−0-9.,]|Enter)$/.test(event.key)) {
      this.number.focus();
      if (event.key === "Enter") this.number.select();
      else this.number.value = event.key;
    } else return;
    event.preventDefault();
  }

  keyInField(event) {
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      this.type();
      this.nudge(event.key === "ArrowUp" ? STEP : -STEP);
    } else if (event.key === "Enter" || event.key === "Escape") {
      if (event.key === "Enter") this.type();
      else this.number.value = "";
      this.grids[this.chosen.where].focus();
      this.show();
    } else return;
    event.preventDefault();
  }

  // --- changes ---
  /** Take changes of the settings from a control or Python. */
  set(changes, { fromPython = false } = {}) {
    const before = this.settings, after = tidy({ ...before, ...changes }, before);
    const keys = Object.keys(DEFAULTS).filter((key) => after[key] !== before[key]);
    this.settings = after;
    this.x = this.inputKind === "own" ? resized(this.x, after.size) : startInput(this.inputKind, after.size);
    this.w = this.kernelKind === "own" ? resized(this.w, after.kernel_size) : startKernel(this.kernelKind, after);
    const told = Object.keys(DEFAULTS).filter((key) => after[key] !== (fromPython ? changes[key] : before[key]));
    if (told.length) this.changed(Object.fromEntries(told.map((key) => [key, after[key]])));
    if (keys.length && this.chosen.where === "output") this.choose("output", this.middle());
    this.save();
    this.show();
  }

  /** Take other numbers, or another view. */
  take(changes) {
    Object.assign(this, changes);
    this.save();
    this.show();
  }

  save() {
    if (!this.space) return;
    clearTimeout(this.writing); // a slider gives many values, and browsers limit how often an address may change
    this.writing = setTimeout(() => history.replaceState(history.state, "", writeAddress(this.space, encode(this, this.initial))), 150);
  }

  /** Change the chosen number of the input or the kernel. */
  change(value) {
    const { where, row, column } = this.chosen, kept = Math.round(100 * limit(value, -MOST, MOST)) / 100;
    if (where === "output") return;
    const [key, kind] = where === "input" ? ["x", "inputKind"] : ["w", "kernelKind"];
    if (this[key][row][column] === kept) return;
    this[key] = this[key].map((line, r) => line.map((old, c) => (r === row && c === column ? kept : old)));
    this.take({ [kind]: "own" });
  }

  nudge(step) {
    const { where, row, column } = this.chosen;
    this.change((where === "input" ? this.x : this.w)[row][column] + step);
    this.number.value = this.chosenNumber();
  }

  type() {
    const text = this.number.value.trim().replace("−", "-").replace(",", ".");
    if (text && Number.isFinite(Number(text))) this.change(Number(text));
    this.number.value = this.chosenNumber();
  }

  chosenNumber() {
    const { where, row, column } = this.chosen;
    return where === "output" ? "" : written((where === "input" ? this.x : this.w)[row][column], 4);
  }

  isChosen(where, row, column) {
    const { chosen } = this;
    return chosen.where === where && chosen.row === row && chosen.column === column;
  }

  // --- what is seen and said ---
  show() {
    const { settings, grids } = this, side = outputSize(settings), { size, kernel_size, stride, padding } = settings;
    const stamped = (size - 1) * stride + kernel_size - padding; // the first row of the output that no stamp reaches
    grids.input.resize(size);
    grids.kernel.resize(kernel_size);
    grids.output.resize(side, padding, Math.max(0, stamped - side));
    this.left.style.setProperty("--columns", `${size}fr ${kernel_size}fr`);
    const isThere = ({ where, row, column }) => grids[where].cells[row]?.[column];
    if (!isThere(this.chosen)) this.choose(this.chosen.where, grids[this.chosen.where].active);
    if (this.hovered && !isThere(this.hovered)) this.hovered = null; // the mouse may rest where a smaller grid ends
    grids[this.chosen.where].active = [this.chosen.row, this.chosen.column];

    for (const [key, one] of Object.entries(this.sliders)) one.show(settings[key], key === "output_padding" ? stride - 1 : LIMITS[key][1]);
    this.formula.textContent = sizeFormula(settings);
    const { isEven, text } = evenness(settings);
    const verdict = isEven ? "Even overlap: " : "Uneven overlap: ";
    this.even.replaceChildren(el("strong", {}, verdict), text);
    this.summary.textContent = `Input ${size} by ${size}, kernel ${kernel_size} by ${kernel_size}, stride ${stride}, padding ${padding}, output padding ${settings.output_padding}: the output is ${side} by ${side}. ${verdict}${text}`;
    const press = (buttons, kind) => buttons.forEach((one) => one.setAttribute("aria-pressed", one.dataset.kind === kind));
    press(this.inputs, this.inputKind);
    press(this.kernels, this.kernelKind.split("-")[0]);
    press(this.views, this.view);
    this.presets.forEach((one, i) => one.setAttribute("aria-pressed", Object.entries(PRESETS[i].settings).every(([key, value]) => settings[key] === value)));

    const y = transposedConvolution(this.x, this.w, settings), counts = overlapCounts(settings), shown = this.view === "counts" ? counts : y;
    const looks = this.looks(y);
    grids.input.show(this.x, looks.input, (i, j, value) => `${short(value)}, ${place(i, j)}`);
    grids.kernel.show(this.w, looks.kernel, (k, l, value) => `${short(value)}, ${place(k, l)}`);
    grids.output.show(shown, looks.output, (o, p, value) => `${this.view === "counts" ? count(value, "input") : short(value)}, ${place(o, p)}`);
    for (const { node, row, column } of grids.output.margin) {
      node.classList.toggle("tc-cropped-lit", looks.reaches(row, column));
      node.style.setProperty("--edges", looks.edges?.(row, column) ?? "2px");
    }
    this.sum.replaceChildren(...looks.words);

    const rest = stamped - side, more = settings.output_padding;
    const kept = more && padding ? ` Output padding ${more} keeps ${count(more, "row")} at the bottom, and as many columns at the right, that padding would crop.` : more ? ` Output padding ${more} adds ${count(more, "row")} at the bottom and as many columns at the right.` : "";
    const hatched = padding ? `Hatched: what padding crops, ${padding} at the top and left${rest > 0 ? `, ${rest} at the bottom and right` : ""}.` : "Nothing is cropped.";
    this.cropped.textContent = hatched + kept;

    const { where, row, column } = this.chosen, isEditable = where !== "output";
    this.editor.hidden = !isEditable;
    this.hint.hidden = isEditable;
    if (isEditable) this.numberName.textContent = `${where === "input" ? "Input" : "Kernel"}, ${place(row, column)}`;
    if (document.activeElement !== this.number) this.number.value = this.chosenNumber();
    this.root.dataset.ready = "";
  }

  /** Return how the cells of each grid stand out for the chosen cell, or the one under the mouse, and the sentence about it. */
  looks(y) {
    const { where, row, column } = this.hovered ?? this.chosen;
    if (where === "input") return this.scatter(row, column);
    if (where === "kernel") return this.weight(row, column);
    return this.gather(row, column, y);
  }

  /** An output pixel: the products that make it. */
  gather(o, p, y) {
    const terms = products(this.settings, o, p), letters = new Map();
    terms.forEach(({ i, j, k, l }, n) => {
      letters.set(`input ${i} ${j}`, String.fromCharCode(97 + n));
      letters.set(`kernel ${k} ${l}`, String.fromCharCode(97 + n));
    });
    const marked = (grid) => (row, column) => {
      const mark = letters.get(`${grid} ${row} ${column}`);
      return mark ? { kind: "lit", mark } : { kind: "quiet" };
    };
    const words = [el("p", {}, el("strong", {}, `Output ${place(o, p)}`), terms.length ? `: ${count(terms.length, "input reaches", "inputs reach")} it, so it is a sum of ${count(terms.length, "product")}.` : ": no input reaches it, so it is 0.")];
    if (terms.length) words.push(this.sumOf(terms, y[o][p]));
    return { input: marked("input"), kernel: marked("kernel"), output: (row, column) => ({ kind: row === o && column === p ? "chosen" : "" }), reaches: () => false, words };
  }

  sumOf(terms, total) {
    const { x, w } = this, line = el("p", { class: "tc-terms" });
    terms.forEach(({ i, j, k, l }, n) => {
      const letter = el("b", { class: "tc-letter", "aria-hidden": "true" }, String.fromCharCode(97 + n));
      line.append(n ? " + " : "", el("span", { class: "tc-term" }, letter, `${factor(x[i][j])} × ${factor(w[k][l])}`));
    });
    const isAbout = isRounded(total) || terms.some(({ i, j, k, l }) => isRounded(x[i][j]) || isRounded(w[k][l]));
    line.append(isAbout ? " ≈ " : " = ", el("strong", {}, written(total)));
    return line;
  }

  /** An input pixel: the block that it stamps. */
  scatter(i, j) {
    const { settings, x, w } = this, { kernel_size } = settings, [top, left] = stampStart(settings, i, j), side = outputSize(settings);
    const isIn = (row, column) => row >= top && row < top + kernel_size && column >= left && column < left + kernel_size;
    const share = (row, column) => {
      const value = x[i][j] * w[row - top][column - left];
      return `${value < 0 ? "" : "+"}${short(value)}`;
    };
    const last = kernel_size - 1;
    const edges = (row, column) => [row === top, column === left + last, row === top + last, column === left].map((isEdge) => (isEdge ? "3px" : "0")).join(" ");
    let kept = 0;
    for (let row = 0; row < side; row++) for (let column = 0; column < side; column++) kept += isIn(row, column);
    const lost = kernel_size ** 2 - kept;
    const words = [
      el("p", {}, el("strong", {}, `Input ${place(i, j)}`), ` stamps ${written(x[i][j])} × the kernel on a block of ${kernel_size} × ${kernel_size} output pixels, and each of them adds what falls on it.`),
      el("p", {}, lost ? `${kept} of the ${kernel_size ** 2} products fall on the output; padding crops the other ${lost}.` : `All ${kernel_size ** 2} products fall on the output.`)];
    return {
      input: (row, column) => ({ kind: row === i && column === j ? "chosen" : "quiet" }),
      kernel: () => ({ kind: "" }),
      output: (row, column) => (isIn(row, column) ? { kind: "block", edges: edges(row, column), mark: this.view === "counts" ? "+1" : share(row, column) } : { kind: "quiet" }),
      reaches: isIn, edges, words,
    };
  }

  /** A kernel cell: the output pixels in which its one weight is used. */
  weight(k, l) {
    const { settings, w } = this, { size, stride, padding } = settings, side = outputSize(settings);
    const isHit = (row, column) => [row + padding - k, column + padding - l].every((at) => at >= 0 && at % stride === 0 && at / stride < size);
    let kept = 0;
    for (let row = 0; row < side; row++) for (let column = 0; column < side; column++) kept += isHit(row, column);
    const apart = stride === 1 ? "next to each other" : stride === 2 ? "on every second row and column" : "on every third row and column";
    const words = [
      el("p", {}, el("strong", {}, `Kernel ${place(k, l)}`), `: the one weight ${written(w[k][l])} is used for each of the ${size * size} input pixels. Its products fall ${apart}${kept < size * size ? `, and padding crops ${size * size - kept} of them` : ""}.`)];
    return {
      input: () => ({ kind: "" }),
      kernel: (row, column) => ({ kind: row === k && column === l ? "chosen" : "quiet" }),
      output: (row, column) => ({ kind: isHit(row, column) ? "lit" : "quiet" }),
      reaches: isHit, words,
    };
  }
}

// --- Mounting: a static page, or a widget in a live notebook ---

let mounted = 0;

/** Bring a mount point of a page to life. */
function mount(element, settings = JSON.parse(element.dataset.settings || "{}")) {
  mounted += 1;
  const space = `t${mounted}`, control = new TransposedConvolution(element, settings, { space });
  element.control = control; // for whoever wants to drive it from the console
  if (entries().includes(`at=${space}`)) element.scrollIntoView({ block: "center" });
  return control;
}

/** Show the widget in a notebook: its settings are the Python object's, both ways. */
function render({ model, el: host }) {
  const keys = Object.keys(DEFAULTS), read = () => Object.fromEntries(keys.map((key) => [key, model.get(key)]));
  const root = el("div", { class: "dcgan-transposed_convolution" });
  host.append(root);
  let isTelling = false; // a change of several settings arrives one by one, and half of it is no state to show
  const control = new TransposedConvolution(root, read(), {
    changed: (changes) => {
      isTelling = true;
      for (const [key, value] of Object.entries(changes)) model.set(key, value);
      isTelling = false;
      model.save_changes();
    },
  });
  root.control = control;
  const listen = () => isTelling || control.set(read(), { fromPython: true });
  for (const key of keys) model.on(`change:${key}`, listen);
  return () => {
    for (const key of keys) model.off(`change:${key}`, listen);
    control.destroy();
  };
}

export default { render };
