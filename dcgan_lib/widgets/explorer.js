// The live explorer: runs a generator in the page and lets a reader move through its latent space.
// No framework, no build step. In a notebook anywidget imports this file, after elements.js, network.js and tour.js, as a module; the
// book loads them as a classic script in which the last line is replaced by one that mounts each element of class dcgan-explorer.
// Sections: numbers, state and address, elements, drawing, modes, mounting.

// --- Numbers: the same in Python, dcgan_lib/widgets/latents.py ---

/** Return n numbers in [0, 1) from a 32-bit seed: the generator mulberry32. */
function uniforms(seed, n) {
  let state = seed >>> 0;
  return Float64Array.from({ length: n }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  });
}

/** Return n standard normal numbers, two from each pair of uniform ones (Box and Muller). */
function normals(seed, n) {
  const u = uniforms(seed, n + (n % 2)), z = new Float64Array(u.length);
  for (let i = 0; i < u.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - u[i])), angle = 2 * Math.PI * u[i + 1];
    z[i] = radius * Math.cos(angle);
    z[i + 1] = radius * Math.sin(angle);
  }
  return z.slice(0, n);
}

/** Return the latent vector of a seed, as float32. */
function seedLatent(seed, about) {
  if (about.z_distribution === "normal") return Float32Array.from(normals(seed, about.z_dim));
  return Float32Array.from(uniforms(seed, about.z_dim), (u) => 2 * u - 1);
}

/** Return two random directions of length 1 at right angles. */
function randomDirections(seed, dim) {
  const drawn = normals((seed ^ 0x9e3779b9) >>> 0, 2 * dim), found = [];
  for (const row of [drawn.slice(0, dim), drawn.slice(dim)]) {
    for (const other of found) {
      const along = dot(row, other);
      row.forEach((value, i) => (row[i] = value - along * other[i]));
    }
    const length = Math.sqrt(dot(row, row));
    found.push(row.map((value) => (length > 1e-9 ? value / length : 0)));
  }
  return found;
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

/** Return the sum of weight x vector over pairs [weight, vector]. */
function combine(dim, pairs) {
  const z = new Float64Array(dim);
  for (const [weight, vector] of pairs) if (weight) for (let i = 0; i < dim; i++) z[i] += weight * vector[i];
  return Float32Array.from(z);
}

/** Return how far a pad or slider reaches at 1: 0.6 of a latent vector's usual length. */
const reach = (about) => 0.6 * Math.sqrt(about.z_dim * (about.z_distribution === "normal" ? 1 : 1 / 3));

/** Return a point between two vectors, along the straight line or along the arc. */
function between(a, b, t, curve) {
  if (curve === "spherical") {
    const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    const angle = Math.acos(Math.min(1, Math.max(-1, cosine))), sine = Math.sin(angle);
    if (sine > 1e-6) return combine(a.length, [[Math.sin((1 - t) * angle) / sine, a], [Math.sin(t * angle) / sine, b]]);
  }
  return combine(a.length, [[1 - t, a], [t, b]]);
}

// --- State and address ---

// Everything that decides what is shown; each key is a trait of the Python class.
const DEFAULTS = {
  model: "", mode: "free", models: [], modes: [], seed: 0, base: [], label: 0, extra: {},
  axes: ["random", "random"], axis_seed: 0, pad: [0, 0], values: {},
  anchors: [1, 2, 3, 4, 5], t: 0, curve: "linear",
  gallery: [], groups: [[], [], []], noise: 0,
  direction: "", far: 1, rows: 4, columns: 7,
  layer: 0, off: [],
  step: -1,
  discriminator: false,
};
const IN_ADDRESS = Object.keys(DEFAULTS).filter((key) => !["models", "modes", "base", "extra", "rows", "columns", "discriminator"].includes(key));
const REBUILT = ["mode", "models", "modes", "extra", "rows", "columns", "gallery", "discriminator"]; // these change the controls themselves
const short = (x) => String(Math.round(x * 1e4) / 1e4);

/** Write whole numbers as ranges: 0-3,7. */
function toRanges(numbers) {
  const parts = [];
  for (const n of [...numbers].sort((a, b) => a - b)) {
    if (parts.length && parts.at(-1)[1] === n - 1) parts.at(-1)[1] = n;
    else parts.push([n, n]);
  }
  return parts.map(([a, b]) => (a === b ? a : `${a}-${b}`)).join(",");
}

function fromRanges(text) {
  return text.split(",").filter(Boolean).flatMap((part) => {
    const [a, b = a] = part.split("-").map(Number);
    return Array.from({ length: Math.min(4096, b - a + 1) || 0 }, (_, i) => a + i);
  });
}

function encode(key, value) {
  if (key === "off") return toRanges(value);
  if (key === "groups") return value.map((group) => group.join(",")).join("/");
  if (key === "values") return Object.entries(value).map(([name, v]) => `${encodeURIComponent(name)}~${short(v)}`).join(",");
  if (Array.isArray(value)) return value.map((v) => (typeof v === "number" ? short(v) : encodeURIComponent(v))).join(",");
  return typeof value === "number" ? short(value) : encodeURIComponent(value);
}

function decode(key, text) {
  const number = (word) => {
    if (!Number.isFinite(Number(word))) throw new Error("not a number");
    return Number(word);
  };
  const numbers = (list) => list.split(",").filter(Boolean).map(number), like = DEFAULTS[key];
  if (key === "off") return fromRanges(text);
  if (key === "groups") return text.split("/").map(numbers).concat([[], [], []]).slice(0, 3);
  if (key === "values") return Object.fromEntries(text.split(",").filter(Boolean).map((pair) => {
    const cut = pair.lastIndexOf("~");
    return [decodeURIComponent(pair.slice(0, cut)), number(pair.slice(cut + 1))];
  }));
  if (key === "axes") return text.split(",").map(decodeURIComponent);
  if (Array.isArray(like)) return numbers(text);
  return typeof like === "number" ? number(text) : decodeURIComponent(text);
}

/** Read one explorer's part of the address, such as #x1=seed:5;pad:0.2,-0.1; what is broken is left out. */
function readAddress(space) {
  const found = {}, part = location.hash.slice(1).split("&").find((entry) => entry.startsWith(`${space}=`));
  for (const pair of (part ?? "").slice(space.length + 1).split(";").filter(Boolean)) {
    const cut = pair.indexOf(":"), key = pair.slice(0, cut);
    try {
      if (IN_ADDRESS.includes(key)) found[key] = decode(key, pair.slice(cut + 1));
    } catch { /* a damaged link still opens the page */ }
  }
  return found;
}

/** Return the address with one explorer's part put in place of the old. */
function address(space, state, initial, extra = []) {
  const same = (key) => JSON.stringify(state[key]) === JSON.stringify(initial[key]);
  const pairs = IN_ADDRESS.filter((key) => !same(key)).map((key) => `${key}:${encode(key, state[key])}`);
  const others = location.hash.slice(1).split("&").filter((entry) => entry && !entry.startsWith(`${space}=`) && !entry.startsWith("at="));
  const parts = [...others, ...(pairs.length ? [`${space}=${pairs.join(";")}`] : []), ...extra];
  return location.href.split("#")[0] + (parts.length ? `#${parts.join("&")}` : "");
}

// --- Elements ---

function select(text, choices, onpick) {
  const box = el("select", { class: "dx-select", onchange: () => onpick(box.value) });
  box.append(...choices.map(([value, shown]) => el("option", { value }, shown)));
  return { row: el("label", { class: "dx-field" }, el("span", {}, text), box), show: (value) => (box.value = value) };
}

function slider(text, { min, max, step, say = short }, onmove) {
  const box = el("input", { type: "range", min, max, step, class: "dx-range", oninput: () => onmove(Number(box.value)) });
  const shown = el("span", { class: "dx-value", "aria-hidden": "true" }); // aria-valuetext says it
  const row = el("label", { class: "dx-slider" }, el("span", { class: "dx-slider-name" }, text), box, shown);
  return { row, box, show(value) {
    box.value = value;
    const words = say(value);
    box.setAttribute("aria-valuetext", words);
    shown.textContent = words;
  } };
}

const signed = (x) => (x > 0 ? "+" : x < 0 ? "−" : "") + Math.abs(x).toFixed(2);
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const anySeed = () => Math.floor(Math.random() * 10000);
const plain = (name) => name.replaceAll("_", " ");

// --- The explorer: state, redraws, the frame that every mode shares ---

class Explorer {
  constructor(root, settings, { load = loadFromSite, space = "", changed = () => {} } = {}) {
    Object.assign(this, { root, load, space, changed, jobs: [], redraws: 0, touched: new Set(), painted: new WeakMap(), visible: true });
    this.initial = structuredClone({ ...DEFAULTS, ...settings });
    this.state = structuredClone({ ...this.initial, ...this.fromAddress() });
    root.addEventListener("keydown", (event) => {
      event.stopPropagation(); // or Lab and the book's theme take the arrow keys
      if (event.key === "Escape" && this.tour) this.endTour();
    });
    if (space) addEventListener("hashchange", (this.onhash = () => this.set({ ...this.initial, ...this.fromAddress() })));
  }

  fromAddress() {
    const found = this.space ? readAddress(this.space) : {};
    if (![this.initial.model, ...this.initial.models].includes(found.model)) delete found.model;
    if (!(found.mode in MODES)) delete found.mode;
    return found;
  }

  async start() {
    const { model } = this.state;
    try {
      const network = await this.load(model);
      if (this.state.model !== model) return;
      this.network = network;
      this.about = network.about;
      this.judge = null;
      this.build();
    } catch (error) {
      console.error(error);
      if (this.network) return this.say(error.message);
      this.root.querySelector(".dx-note")?.remove();
      this.root.append(el("p", { class: "dx-note", role: "status" }, error.message));
    }
  }

  /** Fetch the discriminator, after the first picture stands; without one the explorer goes on alone. */
  async callJudge() {
    const { model } = this.state;
    try {
      const judge = await this.load(model, "discriminator");
      if (this.state.model !== model) return;
      this.judge = judge;
      this.redraw();
    } catch (error) {
      console.error(error);
      this.say(error.message);
    }
  }

  /** Take changes of the state, from a control, the address or Python. */
  set(changes, { fromPython = false } = {}) {
    const keys = Object.keys(changes).filter((key) => JSON.stringify(changes[key]) !== JSON.stringify(this.state[key]));
    if (!keys.length) return;
    if (keys.includes("seed") && !keys.includes("base") && this.state.base.length) {
      changes.base = [];
      keys.push("base");
    }
    for (const key of keys) this.state[key] = structuredClone(changes[key]);
    if (!fromPython) keys.forEach((key) => this.touched.add(key));
    this.lastChange = performance.now();
    if (keys.includes("model")) this.start();
    else if (this.network && keys.some((key) => REBUILT.includes(key))) this.build();
    this.redraw();
  }

  redraw() {
    this.stale = true;
    this.schedule();
  }

  schedule() { // never more than one frame ahead
    if (!this.frameNumber && this.network) this.frameNumber = requestAnimationFrame(() => this.frame());
  }

  /** Bring what came from the address or from Python into bounds. */
  tidy() {
    const { state, about, network } = this, whole = (x, most) => limit(Math.round(x) || 0, 0, Math.max(0, most)), names = this.names();
    state.layer = whole(state.layer, network.convs.length - 1);
    state.label = whole(state.label, about.num_classes - 1);
    state.pad = [0, 1].map((i) => limit(Number(state.pad[i]) || 0, -1, 1));
    state.axes = [0, 1].map((i) => (names.includes(state.axes[i]) ? state.axes[i] : "random"));
    state.groups = [0, 1, 2].map((i) => state.groups[i] ?? []);
    state.anchors = state.anchors.length ? state.anchors.slice(0, 12) : DEFAULTS.anchors;
  }

  frame() {
    this.frameNumber = 0;
    if (this.stale) {
      this.stale = false;
      this.tidy();
      this.jobs = this.view.update();
      if (this.meter && this.judge) this.jobs.splice(1, 0, { run: () => this.judgePicture() });
      this.after();
    }
    const end = performance.now() + 24;
    while (this.jobs.length && performance.now() < end) {
      if (this.jobs[0].late && performance.now() - this.lastChange < 180) { // what is beside the point waits for a pause
        clearTimeout(this.later);
        this.later = setTimeout(() => this.schedule(), 190);
        return;
      }
      const job = this.jobs.shift();
      if (job.run) job.run();
      else this.paint(job.canvas, job.z, job.cut);
    }
    if (this.jobs.length) this.schedule();
  }

  /** Draw a picture into a canvas, unless that very picture is in it already. */
  paint(canvas, z, cut = null) {
    const { about, network, state } = this, key = `${about.name} ${state.label} ${cut ? `${cut.layer}:${cut.off}` : ""}`;
    const before = this.painted.get(canvas);
    if (before && before.key === key && before.z.every((value, i) => value === z[i])) return;
    const started = performance.now(), [height, width] = about.image_size;
    const pixels = network.run(z, state.label, cut);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    this.painted.set(canvas, { key, z, pixels: this.state.discriminator ? pixels.slice() : null });
    this.redraws++;
    const took = performance.now() - started;
    if (this.redraws > 2) this.time = 0.9 * (this.time ?? took) + 0.1 * took; // the first ones are still being compiled
  }

  /** Show what the discriminator thinks of the picture that the view names. */
  judgePicture() {
    const { pixels } = this.painted.get(this.view.judged);
    this.opinion = this.judge.probability(pixels, this.state.label);
    this.meter.show(this.opinion);
    this.root.dataset.opinion = this.opinion.toFixed(4);
  }

  /** Tell the address, Python and the screen reader, each in its own time. */
  after() {
    const touched = [...this.touched];
    this.touched.clear();
    if (touched.length) this.changed(touched, this.state);
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      if (this.space && touched.length + this.unsaved) history.replaceState(history.state, "", address(this.space, this.state, this.initial));
      this.unsaved = 0;
      if (touched.length) this.say(this.meter && this.judge ? `${this.view.words()}. ${opinionWords(this.opinion)}` : this.view.words());
      this.note.textContent = this.noteText();
    }, 300);
    this.unsaved = (this.unsaved ?? 0) + touched.length;
  }

  noteText() {
    if (this.state.mode === "steps") return "Stored while it was trained";
    const took = this.time ? `, ${Math.max(1, Math.round(this.time))} ms a picture` : "";
    return `The generator “${this.about.name}” runs in this page${took}`;
  }

  say(words) {
    if (this.live.textContent !== words) this.live.textContent = words;
  }

  // What the modes ask for.
  base() {
    const { seed, base } = this.state;
    return base.length === this.about.z_dim ? Float32Array.from(base) : seedLatent(seed, this.about);
  }

  names() {
    return [...this.about.directions.map((entry) => entry.name), ...Object.keys(this.state.extra)];
  }

  direction(name, which = 0) {
    const vector = this.state.extra[name] ?? this.about.directions.find((entry) => entry.name === name)?.vector;
    return vector ?? randomDirections(this.state.axis_seed, this.about.z_dim)[which];
  }

  gallerySeeds() {
    const { gallery, seed } = this.state;
    return gallery.length ? gallery : Array.from({ length: 12 }, (_, i) => (seed + i) >>> 0);
  }

  /** The pictures chosen for A, B and C; none chosen: the gallery's first three. */
  groups() {
    const { groups } = this.state;
    return groups.some((group) => group.length) ? groups : [0, 1, 2].map((i) => this.gallerySeeds().slice(i, i + 1));
  }

  picture(text, className = "dx-picture") {
    const [height, width] = this.about.image_size;
    return el("canvas", { class: className, width, height, ...(text ? { role: "img", "aria-label": text } : { "aria-hidden": "true" }) });
  }

  /** Build the controls of the mode inside the mount point. */
  build() {
    const { about, state } = this;
    this.stop?.();
    this.tidy();
    this.view = MODES[state.mode](this);
    this.note = el("p", { class: "dx-note" }, this.noteText());
    this.live = el("p", { class: "dx-live", "aria-live": "polite" });
    const tools = el("div", { class: "dx-tools" }, ...this.tools());
    this.meter = state.discriminator && this.view.judged ? opinionMeter() : null;
    if (this.meter) this.view.element.firstElementChild.after(this.meter.element);
    if (this.meter && !this.judge) this.callJudge();
    this.tourButton = button("Take the tour", () => (this.tour ? this.endTour() : this.startTour()), { "aria-expanded": String(Boolean(this.tour)) });
    const chooser = this.chooser();
    (chooser ?? tools).append(this.tourButton); // the row that has room
    const parts = [chooser, this.view.element, tools, el("div", { class: "dx-foot" }, this.note, this.live), this.tour?.element];
    const label = `Explorer of the generator ${about.name}: ${MODE_NAMES[state.mode]}`;
    const inside = el("div", { class: `dx dx-${state.mode}`, role: "group", "aria-label": label });
    const held = this.tour?.element.contains(document.activeElement) && document.activeElement;
    inside.append(...parts.filter(Boolean));
    this.root.replaceChildren(inside);
    if (held) held.focus({ preventScroll: true });
    this.tour?.point();
    this.root.dataset.ready = state.mode;
    this.redraw();
  }

  startTour() {
    this.tour = new Tour(this, () => this.endTour());
    this.root.firstElementChild.append(this.tour.element);
    this.tourButton.setAttribute("aria-expanded", "true");
    this.tour.show();
    this.tour.next.focus({ preventScroll: true });
  }

  /** Leave the tour, in the mode in which it began. */
  endTour() {
    const { tour } = this;
    this.tour = null;
    tour.unmark();
    tour.element.remove();
    this.set({ mode: tour.cameFrom });
    this.tourButton.setAttribute("aria-expanded", "false");
    this.tourButton.focus();
  }

  /** A row of modes and a choice of models, where the page offers more than one. */
  chooser() {
    const { mode, modes, model, models } = this.state, row = el("div", { class: "dx-chooser" });
    if (modes.length > 1) {
      const pressed = (name) => ({ "aria-pressed": String(name === mode), class: "dx-button dx-tab" });
      const tabs = modes.map((name) => button(MODE_NAMES[name] ?? name, () => this.switchMode(name), pressed(name)));
      row.append(el("div", { class: "dx-tabs", role: "group", "aria-label": "What to do" }, ...tabs));
    }
    if (models.length > 1) {
      const box = select("Generator", models.map((name) => [name, name]), (name) => this.set({ model: name }));
      box.row.classList.add("dx-models");
      box.show(model);
      row.append(box.row);
    }
    return row.children.length ? row : null;
  }

  switchMode(name) {
    this.set({ mode: name });
    this.root.querySelector(".dx-tab[aria-pressed=true]")?.focus();
  }

  tools() {
    const { state, about } = this, tools = [];
    if (this.view.seeded !== false) {
      const box = el("input", { type: "number", min: 0, max: 4294967295, step: 1, class: "dx-seed", inputmode: "numeric",
        onchange: () => this.set({ seed: limit(Math.floor(Number(box.value)) || 0, 0, 4294967295) }) });
      this.showSeed = () => document.activeElement !== box && (box.value = state.base.length ? "" : state.seed);
      tools.push(el("label", { class: "dx-field dx-seed-field" }, el("span", {}, "Seed"), box), button("New z", () => {
        const seed = anySeed();
        box.value = seed;
        this.set({ seed });
      }, { class: "dx-button dx-new", title: "Draw another latent vector" }));
    } else this.showSeed = () => {};
    if (about.num_classes && state.mode !== "steps") {
      const classes = Array.from({ length: about.num_classes }, (_, i) => [i, String(i)]);
      const box = select("Class", classes, (label) => this.set({ label: Number(label) }));
      this.showLabel = () => box.show(this.state.label);
      tools.push(box.row);
    } else this.showLabel = () => {};
    const reset = () => this.set({ ...this.initial, mode: state.mode, model: state.model });
    tools.push(el("span", { class: "dx-gap" }), button("Reset", reset));
    if (this.space) tools.push(button("Copy link", () => this.copyLink()));
    tools.push(button("Save PNG", () => this.savePng(), { class: "dx-button dx-save" }));
    return tools;
  }

  async copyLink() {
    const link = address(this.space, this.state, this.initial, [`at=${this.space}`]);
    try {
      await navigator.clipboard.writeText(link);
      this.say("Link copied");
    } catch {
      this.say("The browser keeps its clipboard shut: copy the address above instead");
    }
  }

  /** Save what the mode shows: each pixel of the generator four wide, a stored picture as it is. */
  savePng() {
    const { about, state } = this, rows = this.view.sheet(), gap = 8;
    if (!rows.length) return;
    const { naturalWidth, naturalHeight } = rows[0][0];
    const [width, height] = naturalWidth ? [naturalWidth, naturalHeight] : [4 * rows[0][0].width, 4 * rows[0][0].height];
    const canvas = el("canvas", { width: rows[0].length * (width + gap) - gap, height: rows.length * (height + gap) - gap });
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    const put = (picture, i, j) => context.drawImage(picture, j * (width + gap), i * (height + gap), width, height);
    rows.forEach((row, i) => row.forEach((picture, j) => put(picture, i, j)));
    canvas.toBlob((blob) => {
      const link = el("a", { href: URL.createObjectURL(blob), download: `${about.name}-${state.mode}-${state.seed}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  /** Return a play button that calls tick(seconds) before each frame, or jump() where motion is unwelcome. */
  player(tick, jump) {
    let last = 0, playing = 0;
    const show = () => {
      control.textContent = calm() ? "Next" : playing ? "Pause" : "Play";
    };
    const turn = (now) => {
      if (this.visible && !document.hidden) tick(Math.min(0.1, (now - last) / 1000));
      last = now;
      playing = requestAnimationFrame(turn);
    };
    this.stop = () => {
      cancelAnimationFrame(playing);
      playing = 0;
      show();
    };
    const control = button("Play", () => {
      if (calm()) return jump();
      if (playing) return this.stop();
      last = performance.now();
      playing = requestAnimationFrame(turn);
      show();
    }, { class: "dx-button dx-play" });
    show();
    return control;
  }

  destroy() {
    this.stop?.();
    cancelAnimationFrame(this.frameNumber);
    if (this.onhash) removeEventListener("hashchange", this.onhash);
  }
}

// --- Modes: each builds its controls and returns {element, update, words, sheet} ---

const MODE_NAMES = { free: "Explore", walk: "Walk", arithmetic: "Arithmetic", turn: "Turn", maps: "Feature maps", steps: "Training" };
const MODES = { free: freeMode, walk: walkMode, arithmetic: arithmeticMode, turn: turnMode, maps: mapsMode, steps: stepsMode };

/** The z of the mode free: the base, plus the pad, plus the sliders. */
function freeLatent(explorer, pad = explorer.state.pad) {
  const { state, about } = explorer, far = reach(about);
  const moved = state.axes.map((name, i) => [far * pad[i], explorer.direction(name, i)]);
  const slid = Object.entries(state.values).filter(([name]) => explorer.names().includes(name));
  return combine(about.z_dim, [[1, explorer.base()], ...moved, ...slid.map(([name, v]) => [far * v, explorer.direction(name)])]);
}

function freeMode(explorer) {
  const { state } = explorer, picture = explorer.picture("The picture of the current z"), cells = 5;
  const mosaic = Array.from({ length: cells * cells }, () => explorer.picture("", "dx-cell"));
  const handle = el("span", { class: "dx-handle" });
  const lines = el("span", { class: "dx-lines" });
  const move = (x, y) => explorer.set({ pad: [x, y].map((v) => Math.round(limit(v, -1, 1) * 1000) / 1000) });
  const pad = el("div", { class: "dx-pad", tabindex: 0, role: "application", "aria-roledescription": "two-dimensional pad",
    "aria-label": "Pad: the arrow keys move through latent space, with Shift faster; Home returns to the middle" },
  el("div", { class: "dx-mosaic" }, ...mosaic), lines, handle);
  const follow = (event) => {
    const box = pad.getBoundingClientRect();
    move((2 * (event.clientX - box.left)) / box.width - 1, 1 - (2 * (event.clientY - box.top)) / box.height);
  };
  pad.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pad.setPointerCapture(event.pointerId);
    pad.dataset.held = "";
    follow(event);
  });
  pad.addEventListener("pointermove", (event) => "held" in pad.dataset && follow(event));
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) pad.addEventListener(end, () => delete pad.dataset.held);
  pad.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.2 : 0.05, [x, y] = state.pad;
    const moves = { ArrowLeft: [x - step, y], ArrowRight: [x + step, y], ArrowUp: [x, y + step], ArrowDown: [x, y - step], Home: [0, 0] };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(...moves[event.key]);
  });
  const names = explorer.names(), choices = (i) => [["random", `random ${i + 1}`], ...names.map((name) => [name, plain(name)])];
  const pick = (i) => (name) => explorer.set({ axes: state.axes.map((old, j) => (i === j ? name : old)) });
  const axes = ["Across", "Up"].map((text, i) => select(text, choices(i), pick(i)));
  const again = button("New directions", () => explorer.set({ axis_seed: anySeed(), axes: ["random", "random"], pad: [0, 0] }), { class: "dx-button dx-directions" });
  const slide = (name) => (value) => explorer.set({ values: { ...state.values, [name]: value } });
  const sliders = names.map((name) => [name, slider(plain(name), { min: -1, max: 1, step: 0.05, say: signed }, slide(name))]);
  const element = el("div", { class: "dx-view" },
    el("div", { class: "dx-pair" }, el("div", { class: "dx-stage" }, picture), pad),
    el("div", { class: "dx-row" }, ...axes.map((axis) => axis.row), again),
    ...(sliders.length ? [el("div", { class: "dx-sliders" }, ...sliders.map(([, entry]) => entry.row))] : []));
  return {
    element, judged: picture,
    update() {
      const [x, y] = state.pad;
      for (const [side, value] of [["--x", x], ["--y", -y]]) pad.style.setProperty(side, `${50 + 50 * value}%`);
      axes.forEach((axis, i) => axis.show(state.axes[i]));
      for (const [name, entry] of sliders) entry.show(state.values[name] ?? 0);
      explorer.showSeed();
      explorer.showLabel();
      const at = (i) => (2 * i + 1) / cells - 1;
      const cell = (canvas, i) => ({ canvas, z: freeLatent(explorer, [at(i % cells), -at(Math.floor(i / cells))]), late: true });
      return [{ canvas: picture, z: freeLatent(explorer) }, ...mosaic.map(cell)];
    },
    words() {
      const slid = Object.entries(state.values).filter(([, v]) => v).map(([name, v]) => `, ${plain(name)} ${signed(v)}`);
      return `Seed ${state.seed}, across ${signed(state.pad[0])}, up ${signed(state.pad[1])}${slid.join("")}`;
    },
    sheet: () => [[picture]],
  };
}

function walkMode(explorer) {
  const { state } = explorer, picture = explorer.picture("The picture on the way");
  const last = () => Math.max(1, state.anchors.length - 1);
  const strip = el("div", { class: "dx-strip" });
  let thumbs = [], direction = 1;
  const arrange = () => {
    thumbs = state.anchors.map((seed, i) => {
      const canvas = explorer.picture("", "dx-thumb");
      return { canvas, control: button("", () => explorer.set({ t: i }), { class: "dx-tile", "aria-label": `Go to anchor ${i + 1}, seed ${seed}` }) };
    });
    thumbs.forEach(({ canvas, control }) => control.append(canvas));
    strip.replaceChildren(...thumbs.map(({ control }) => control));
    strip.dataset.anchors = state.anchors.join(",");
    element.style.setProperty("--anchors", state.anchors.length);
    bar.box.max = last();
  };
  const say = (t) => `${Number(t).toFixed(2)}`;
  const bar = slider("Position", { min: 0, max: last(), step: 0.01, say }, (t) => explorer.set({ t }));
  const play = explorer.player((seconds) => {
    let t = state.t + direction * 0.4 * seconds;
    if (t >= last() || t <= 0) direction = t <= 0 ? 1 : -1;
    explorer.set({ t: limit(t, 0, last()) });
  }, () => explorer.set({ t: state.t >= last() ? 0 : Math.floor(state.t) + 1 }));
  const curve = select("Path", [["linear", "straight"], ["spherical", "on the sphere"]], (value) => explorer.set({ curve: value }));
  const again = button("New anchors", () => explorer.set({ anchors: state.anchors.map(anySeed), t: 0 }));
  bar.row.className = "dx-track";
  curve.row.classList.add("dx-path");
  const element = el("div", { class: "dx-view" }, el("div", { class: "dx-stage dx-alone" }, picture),
    el("div", {}, strip, bar.row), el("div", { class: "dx-row" }, play, curve.row, again));
  return {
    element, seeded: false, judged: picture,
    update() {
      if (strip.dataset.anchors !== state.anchors.join(",")) arrange();
      const t = limit(state.t, 0, last()), i = Math.min(Math.floor(t), last() - 1);
      const seeds = state.anchors.map((seed) => seedLatent(seed, explorer.about));
      bar.show(t);
      curve.show(state.curve);
      explorer.showLabel();
      thumbs.forEach(({ control }, j) => control.classList.toggle("dx-on", Math.abs(j - t) < 0.5));
      const z = seeds.length > 1 ? between(seeds[i], seeds[i + 1], t - i, state.curve) : seeds[0];
      return [{ canvas: picture, z }, ...thumbs.map(({ canvas }, j) => ({ canvas, z: seeds[j] }))];
    },
    words: () => `Position ${say(state.t)} between ${state.anchors.length} anchors`,
    sheet: () => [[picture]],
  };
}

/** Return the nine vectors of A − B + C: the clean one in the middle, uniform noise within ±0.25 around it. */
function arithmeticLatents(state, about) {
  const mean = (group) => combine(about.z_dim, group.map((seed) => [1 / group.length, seedLatent(seed, about)]));
  const means = state.groups.map(mean), clean = combine(about.z_dim, [[1, means[0]], [-1, means[1]], [1, means[2]]]);
  const noise = uniforms(state.noise, 9 * about.z_dim), nine = [];
  for (let cell = 0; cell < 9; cell++) nine.push(cell === 4 ? clean : clean.map((v, i) => v + 0.5 * noise[cell * about.z_dim + i] - 0.25));
  return { means, nine };
}

function arithmeticMode(explorer) {
  const { state } = explorer, letters = ["A", "B", "C"];
  let active = 0;
  const choose = (i) => {
    active = i;
    explorer.redraw();
  };
  const slots = letters.map((letter, i) => {
    const canvas = explorer.picture("", "dx-thumb"), count = el("small", {});
    const control = button("", () => choose(i), { class: "dx-tile dx-slot", "aria-pressed": "false" });
    control.append(canvas, el("strong", {}, letter), " ", count);
    return { canvas, control, count };
  });
  const nine = Array.from({ length: 9 }, (_, i) => explorer.picture(i === 4 ? "A − B + C" : "", "dx-thumb"));
  const toggle = (seed) => {
    const old = explorer.groups()[active], group = old.includes(seed) ? old.filter((s) => s !== seed) : [...old, seed].slice(-3);
    explorer.set({ groups: explorer.groups().map((other, i) => (i === active ? group : other)) });
  };
  const shelf = explorer.gallerySeeds().map((seed, i) => ({ seed, canvas: explorer.picture("", "dx-thumb"), mark: el("span", { class: "dx-mark", "aria-hidden": "true" }),
    control: button("", () => toggle(shelf[i].seed), { class: "dx-tile" }) }));
  shelf.forEach(({ canvas, control, mark }) => control.append(canvas, mark));
  const hint = el("p", { class: "dx-hint" });
  const sign = (text) => el("span", { class: "dx-sign", "aria-hidden": "true" }, text);
  const [a, b, c] = slots.map(({ control }) => control);
  const again = button("New noise", () => explorer.set({ noise: anySeed() }));
  const element = el("div", { class: "dx-view" },
    el("div", { class: "dx-sum", role: "group", "aria-label": "A − B + C; press a letter to choose its pictures below" }, a, sign("−"), b, sign("+"), c, sign("="), el("div", { class: "dx-nine" }, ...nine)),
    el("div", { class: "dx-row" }, hint, again),
    el("div", { class: "dx-shelf", role: "group", "aria-label": "Pictures to choose from" }, ...shelf.map(({ control }) => control)));
  return {
    element,
    update() {
      explorer.gallerySeeds().forEach((seed, i) => (shelf[i].seed = seed));
      explorer.showSeed();
      explorer.showLabel();
      const groups = explorer.groups(), { means, nine: vectors } = arithmeticLatents({ groups, noise: state.noise }, explorer.about);
      slots.forEach(({ control, count }, i) => {
        const number = groups[i].length;
        count.textContent = number === 1 ? "1 picture" : `mean of ${number}`;
        control.setAttribute("aria-pressed", String(i === active));
      });
      hint.textContent = `Choose up to three pictures for ${letters[active]}.`;
      shelf.forEach(({ seed, control, mark }) => {
        const where = letters.filter((_, i) => groups[i].includes(seed)).join(" ");
        mark.textContent = where;
        control.setAttribute("aria-pressed", String(groups[active].includes(seed)));
        control.setAttribute("aria-label", `Seed ${seed}${where ? `, in ${where}` : ""}`);
      });
      const sums = nine.map((canvas, i) => ({ canvas, z: vectors[i] })), [clean] = sums.splice(4, 1); // the clean one first
      const chosen = slots.map(({ canvas }, i) => ({ canvas, z: means[i] }));
      return [clean, ...chosen, ...shelf.map(({ seed, canvas }) => ({ canvas, z: seedLatent(seed, explorer.about) })), ...sums];
    },
    words: () => explorer.groups().map((group, i) => `${letters[i]}: ${group.length ? `seed ${group.join(", ")}` : "none"}`).join("; "),
    sheet: () => [nine.slice(0, 3), nine.slice(3, 6), nine.slice(6)],
  };
}

function turnMode(explorer) {
  const { state } = explorer, names = explorer.names(), { rows, columns } = state;
  const chosen = () => (names.includes(state.direction) || state.direction === "random" ? state.direction : names[0] ?? "random");
  const place = (column) => (columns > 1 ? (2 * column) / (columns - 1) - 1 : 0);
  const cell = (row, column) => explorer.picture(`Row ${row + 1}, ${signed(place(column))}`, "dx-thumb");
  const grid = Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, column) => cell(row, column)));
  const choices = [...names.map((name) => [name, plain(name)]), ["random", "random"]];
  const box = select("Direction", choices, (name) => explorer.set({ direction: name }));
  const bar = slider("How far", { min: 0, max: 1.5, step: 0.05, say: (v) => Number(v).toFixed(2) }, (far) => explorer.set({ far }));
  bar.row.classList.add("dx-far");
  const again = button("Another random one", () => explorer.set({ direction: "random", axis_seed: anySeed() }));
  const heads = grid[0].map((_, column) => el("span", { class: "dx-head" }));
  const element = el("div", { class: "dx-view" },
    el("div", { class: "dx-turns", style: `--columns: ${columns}` }, ...heads, ...grid.flat()),
    el("div", { class: "dx-row" }, box.row, bar.row, again));
  return {
    element,
    update() {
      box.show(chosen());
      bar.show(state.far);
      again.hidden = chosen() !== "random";
      explorer.showSeed();
      explorer.showLabel();
      heads.forEach((head, column) => (head.textContent = signed(state.far * place(column))));
      const vector = explorer.direction(chosen()), far = reach(explorer.about) * state.far;
      const start = (row) => (row ? seedLatent((state.seed + row) >>> 0, explorer.about) : explorer.base());
      const middle = (columns - 1) / 2, order = [...heads.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
      const moved = (row, column) => combine(explorer.about.z_dim, [[1, start(row)], [far * place(column), vector]]);
      return order.flatMap((column) => grid.map((line, row) => ({ canvas: line[column], z: moved(row, column) })));
    },
    words: () => `Direction ${plain(chosen())}, ${rows} rows from seed ${state.seed}, ±${short(state.far)}`,
    sheet: () => grid,
  };
}

const CIVIDIS = [[0, 32, 77], [65, 77, 107], [124, 123, 120], [188, 175, 111], [255, 234, 70]];
function shade(x) {
  const at = limit(x, 0, 1) * 4, i = Math.min(3, Math.floor(at));
  return CIVIDIS[i].map((low, k) => low + (at - i) * (CIVIDIS[i + 1][k] - low));
}

function mapsMode(explorer) {
  const { state, network } = explorer, most = 256;
  const before = explorer.picture("The picture with all maps on"), after = explorer.picture("The picture with some maps off");
  const sizes = network.convs.map(({ inputs, height, width }) => ({ inputs, height, width }));
  const text = ({ inputs, height, width }, i) => [String(i), `${i + 1}: ${inputs} maps of ${height} × ${width}`];
  const box = select("Layer", sizes.map(text), (layer) => explorer.set({ layer: Number(layer), off: [] }));
  const sea = el("div", { class: "dx-tiles", role: "group", "aria-label": "Feature maps; the arrow keys move between them, Space switches one off or on" });
  const hint = el("p", { class: "dx-hint" });
  let tiles = [], built = -1, shown = "";
  const without = (i) => state.off.filter((other) => other !== i);
  const toggle = (i) => explorer.set({ off: state.off.includes(i) ? without(i) : [...state.off, i].sort((a, b) => a - b) });
  const every = () => Array.from({ length: sizes[state.layer].inputs }, (_, i) => i);
  const arrange = () => {
    built = state.layer;
    const { inputs, height, width } = sizes[built];
    tiles = Array.from({ length: Math.min(inputs, most) }, (_, i) => {
      const control = button("", () => toggle(i), { class: "dx-map", tabindex: i ? -1 : 0 });
      control.append(el("canvas", { width, height, "aria-hidden": "true" }));
      return control;
    });
    sea.replaceChildren(...tiles);
  };
  sea.addEventListener("keydown", (event) => {
    const i = tiles.indexOf(document.activeElement), across = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
    const moves = { ArrowLeft: i - 1, ArrowRight: i + 1, ArrowUp: i - across, ArrowDown: i + across, Home: 0, End: tiles.length - 1 };
    if (i < 0 || !tiles[moves[event.key]]) return;
    event.preventDefault();
    for (const tile of tiles) tile.tabIndex = -1;
    Object.assign(tiles[moves[event.key]], { tabIndex: 0 }).focus();
  });
  const drawTiles = () => {
    const { inputs, height, width } = sizes[built], map = network.maps[built], step = network.channels(built);
    network.run(explorer.base(), state.label);
    const peak = map.reduce((top, value) => Math.max(top, value), 1e-9);
    tiles.forEach((tile, channel) => {
      const image = new ImageData(width, height);
      for (let p = 0; p < width * height; p++) image.data.set([...shade(Math.sqrt(map[p * step + channel] / peak)), 255], 4 * p);
      tile.firstChild.getContext("2d").putImageData(image, 0, 0);
    });
    return inputs;
  };
  const figure = (canvas, caption) => el("figure", { class: "dx-figure" }, el("div", { class: "dx-stage" }, canvas), el("figcaption", {}, caption));
  const element = el("div", { class: "dx-view" },
    el("div", { class: "dx-pair" }, figure(before, "all maps on"), figure(after, "as switched below")),
    el("div", { class: "dx-row" }, box.row, button("All on", () => explorer.set({ off: [] })), button("All off", () => explorer.set({ off: every() })), hint), sea);
  return {
    element, judged: after,
    update() {
      if (built !== state.layer) arrange();
      box.show(state.layer);
      explorer.showSeed();
      explorer.showLabel();
      const { inputs } = sizes[built], off = new Set(state.off), z = explorer.base();
      hint.textContent = `${off.size} of ${inputs} off${inputs > most ? `; the first ${most} shown` : ""}`;
      tiles.forEach((tile, i) => {
        tile.setAttribute("aria-pressed", String(!off.has(i)));
        tile.setAttribute("aria-label", `Map ${i}, ${off.has(i) ? "off" : "on"}`);
      });
      const key = `${explorer.about.name} ${built} ${state.label} ${z}`;
      const draw = () => shown !== key && drawTiles() && (shown = key);
      return [{ canvas: after, z, cut: { layer: built, off: state.off.filter((i) => i < inputs) } }, { canvas: before, z }, { run: draw }];
    },
    words: () => `Layer ${built + 1}: ${state.off.length} of ${sizes[built].inputs} maps off`,
    sheet: () => [[before, after]],
  };
}

function stepsMode(explorer) {
  const { state, about } = explorer, samples = about.samples ?? [], last = samples.length - 1;
  if (last < 0) {
    const element = el("p", { class: "dx-note" }, "No pictures from its training are stored with this model.");
    return { element, seeded: false, update: () => [], words: () => "", sheet: () => [] };
  }
  const now = () => (state.step < 0 ? last : Math.min(Math.round(state.step), last));
  const images = samples.map((entry) => Object.assign(new Image(), { src: entry.picture, alt: "", className: "dx-grid" }));
  const stage = el("div", { class: "dx-stage dx-alone dx-wide", role: "img" }, images[now()]);
  const say = (i) => `step ${samples[i].step.toLocaleString("en")}`;
  const bar = slider("After", { min: 0, max: last, step: 1, say }, (step) => explorer.set({ step }));
  let clock = 0;
  const play = explorer.player((seconds) => {
    clock += seconds;
    if (clock > 0.7) explorer.set({ step: (now() + 1) % samples.length });
    if (clock > 0.7) clock = 0;
  }, () => explorer.set({ step: (now() + 1) % samples.length }));
  return {
    element: el("div", { class: "dx-view" }, stage, el("div", { class: "dx-row" }, play, bar.row)),
    seeded: false,
    update() {
      bar.show(now());
      if (stage.firstChild !== images[now()]) stage.replaceChildren(images[now()]);
      stage.setAttribute("aria-label", `Pictures from the same latent vectors after ${say(now())}`);
      explorer.showLabel();
      return [];
    },
    words: () => `Training, ${say(now())}`,
    sheet: () => [[images[now()]]],
  };
}

// --- Mounting: a static page, or a widget in a live notebook ---

let mounted = 0;

/** Bring a mount point of a page to life once it comes into view; settings are the state to start from. */
function mount(element, settings = JSON.parse(element.dataset.explorer || "{}")) {
  mounted += 1;
  const explorer = new Explorer(element, settings, { space: `x${mounted}` });
  element.explorer = explorer; // for whoever wants to drive it from the console
  let started = false;
  new IntersectionObserver((entries) => {
    explorer.visible = entries.some((entry) => entry.isIntersecting);
    if (explorer.visible && !started) {
      started = true;
      explorer.start();
    }
  }, { rootMargin: "300px" }).observe(element);
  if (location.hash.split("&").some((entry) => entry.replace("#", "") === `at=x${mounted}`)) element.scrollIntoView({ block: "center" });
  return explorer;
}

/** Show the widget in a notebook: its state is the Python object's, both ways. */
function render({ model, el: host }) {
  const keys = Object.keys(DEFAULTS), settings = Object.fromEntries(keys.map((key) => [key, model.get(key)]));
  const root = el("div", { class: "dcgan-explorer" }, el("p", { class: "dx-note" }, "Waiting for the generator’s weights…"));
  const explorer = new Explorer(root, settings, {
    load: (name, network) => loadFromKernel(model, name, network),
    changed: (touched, state) => {
      for (const key of touched) model.set(key, structuredClone(state[key]));
      model.save_changes();
    },
  });
  root.explorer = explorer;
  const listeners = keys.map((key) => [`change:${key}`, () => explorer.set({ [key]: model.get(key) }, { fromPython: true })]);
  for (const [event, listener] of listeners) model.on(event, listener);
  host.append(root);
  explorer.start();
  return () => {
    for (const [event, listener] of listeners) model.off(event, listener);
    explorer.destroy();
  };
}

export default { render };
