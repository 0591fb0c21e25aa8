// The judge: a reader draws, and a discriminator in the page says how likely it takes the drawing to be real.
// In a notebook anywidget imports this file, after elements.js and network.js, as a module; the book loads them as a classic
// script in which the last line is replaced by one that mounts every element of class dcgan-judge.
// A stroke is a list of points [x, y], each 0 to 1, from the top left. Sections: presets, pixels, the judge, mounting.

// --- Presets: strokes as a hand would draw them, each a curve through a few points ---

const PRESETS = {
  0: [[[0.5, 0.12], [0.32, 0.22], [0.24, 0.5], [0.32, 0.78], [0.5, 0.88], [0.68, 0.78], [0.76, 0.5], [0.68, 0.22], [0.5, 0.12]]],
  1: [[[0.57, 0.12], [0.52, 0.5], [0.46, 0.88]]],
  2: [[[0.28, 0.3], [0.4, 0.14], [0.62, 0.14], [0.7, 0.32], [0.56, 0.56], [0.27, 0.86]], [[0.27, 0.86], [0.5, 0.84], [0.76, 0.86]]],
  3: [[[0.3, 0.18], [0.5, 0.11], [0.68, 0.22], [0.62, 0.4], [0.44, 0.48]], [[0.44, 0.48], [0.66, 0.54], [0.72, 0.72], [0.56, 0.88], [0.3, 0.84]]],
  4: [[[0.4, 0.14], [0.34, 0.36], [0.27, 0.56]], [[0.27, 0.56], [0.5, 0.56], [0.76, 0.54]], [[0.66, 0.18], [0.62, 0.5], [0.58, 0.88]]],
  5: [[[0.72, 0.14], [0.4, 0.15]], [[0.4, 0.15], [0.36, 0.44]], [[0.36, 0.44], [0.56, 0.4], [0.7, 0.56], [0.66, 0.78], [0.48, 0.88], [0.28, 0.82]]],
  6: [[[0.64, 0.12], [0.42, 0.3], [0.3, 0.6], [0.38, 0.84], [0.58, 0.86], [0.68, 0.68], [0.56, 0.54], [0.38, 0.6], [0.31, 0.72]]],
  7: [[[0.26, 0.18], [0.5, 0.17], [0.74, 0.16]], [[0.74, 0.16], [0.58, 0.48], [0.46, 0.88]]],
  8: [[[0.66, 0.22], [0.48, 0.12], [0.34, 0.24], [0.44, 0.42], [0.62, 0.58], [0.66, 0.78], [0.48, 0.89], [0.32, 0.76], [0.42, 0.56], [0.6, 0.4], [0.66, 0.22]]],
  9: [[[0.68, 0.28], [0.52, 0.14], [0.34, 0.24], [0.36, 0.44], [0.54, 0.48], [0.68, 0.28]], [[0.68, 0.28], [0.66, 0.6], [0.58, 0.88]]],
  "letter A": [[[0.27, 0.88], [0.5, 0.12]], [[0.5, 0.12], [0.73, 0.88]], [[0.36, 0.6], [0.64, 0.6]]],
  star: [[[0.24, 0.85], [0.5, 0.1]], [[0.5, 0.1], [0.76, 0.85]], [[0.76, 0.85], [0.1, 0.4]], [[0.1, 0.4], [0.9, 0.4]], [[0.9, 0.4], [0.24, 0.85]]],
  scribble: [[[0.15, 0.3], [0.4, 0.12], [0.3, 0.5], [0.6, 0.2], [0.45, 0.65], [0.75, 0.3], [0.6, 0.8], [0.88, 0.5], [0.7, 0.9], [0.3, 0.7], [0.15, 0.85]]],
};

/** Return a curve through points, six pieces between two of them (Catmull and Rom). */
function curve(points) {
  const at = (i) => points[limit(i, 0, points.length - 1)], found = [points[0]];
  for (let i = 0; i + 1 < points.length; i++) {
    const [p, a, b, q] = [at(i - 1), at(i), at(i + 1), at(i + 2)];
    for (let step = 1; step <= 6; step++) found.push([0, 1].map((k) => rounded(cubic(p[k], a[k], b[k], q[k], step / 6))));
  }
  return found;
}

/** Return the value at t of the piece from a to b, whose neighbours are p and q. */
function cubic(p, a, b, q, t) {
  const second = 2 * p - 5 * a + 4 * b - q, third = 3 * a - p - 3 * b + q;
  return a + (t / 2) * (b - p + t * (second + t * third));
}

const rounded = (x) => Math.round(limit(x, 0, 1) * 1e4) / 1e4;
const preset = (name) => PRESETS[name].map(curve);

// --- Pixels: the same in Python, dcgan_lib/widgets/judge.py ---

/** Return strokes in pixels; with `fit` as large as MNIST's digits and, as those, with the centre of mass in the middle. */
function placed(strokes, [height, width], pen, fit) {
  const inPixels = strokes.map((stroke) => stroke.map(([x, y]) => [x * width, y * height]));
  const points = inPixels.flat();
  if (!fit || !points.length) return inPixels;
  const sides = [0, 1].map((k) => Math.max(...points.map((point) => point[k])) - Math.min(...points.map((point) => point[k])));
  const box = (20 * Math.min(height, width, 28)) / 28 * Math.max(1, Math.min(height, width) / 32);
  const scale = Math.min(4, (box - pen) / Math.max(1e-6, ...sides));
  let mass = 0, sumX = 0, sumY = 0;
  for (const [[ax, ay], [bx, by]] of segments(inPixels)) {
    const length = Math.sqrt((bx - ax) ** 2 + (by - ay) ** 2) + 1e-6;
    mass += length;
    sumX += (length * (ax + bx)) / 2;
    sumY += (length * (ay + by)) / 2;
  }
  return inPixels.map((stroke) => stroke.map(([x, y]) => [width / 2 + scale * (x - sumX / mass), height / 2 + scale * (y - sumY / mass)]));
}

/** Return the straight pieces of strokes; a stroke of one point is a piece without length. */
function segments(strokes) {
  const found = [];
  for (const stroke of strokes) {
    if (stroke.length === 1) found.push([stroke[0], stroke[0]]);
    for (let i = 1; i < stroke.length; i++) found.push([stroke[i - 1], stroke[i]]);
  }
  return found;
}

/** Return levels 0 to 255, row by row: white ink on black, a pixel's level by its distance from the nearest stroke. */
function rasterise(strokes, size, pen, fit) {
  const [height, width] = size, pieces = segments(placed(strokes, size, pen, fit)), levels = new Uint8Array(height * width);
  for (let p = 0; p < height * width; p++) {
    const x = (p % width) + 0.5, y = Math.floor(p / width) + 0.5;
    let nearest = Infinity;
    for (const [[ax, ay], [bx, by]] of pieces) {
      const dx = bx - ax, dy = by - ay, t = limit(((x - ax) * dx + (y - ay) * dy) / Math.max(1e-12, dx * dx + dy * dy), 0, 1);
      nearest = Math.min(nearest, (x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2);
    }
    levels[p] = Math.floor(255 * limit(pen / 2 + 0.5 - Math.sqrt(nearest), 0, 1) + 0.5);
  }
  return levels;
}

// --- The judge ---

// Each key is a trait of the Python class.
const DEFAULTS = { model: "mnist", strokes: [], pen: 2.6, fit: true };
const MOST_POINTS = 2000, LEAST_STEP = 0.008;

class Judge {
  constructor(root, settings, { load = loadFromSite, changed = () => {} } = {}) {
    Object.assign(this, { root, load, changed, state: structuredClone({ ...DEFAULTS, ...settings }) });
    root.addEventListener("keydown", (event) => event.stopPropagation()); // or Lab and the book's theme take the keys
  }

  async start() {
    const { model } = this.state;
    try {
      const network = await this.load(model, "discriminator");
      if (this.state.model !== model) return;
      this.network = network;
      this.build();
    } catch (error) {
      console.error(error);
      this.root.querySelector(".dx-note")?.remove();
      this.root.append(el("p", { class: "dx-note", role: "status" }, error.message));
    }
  }

  set(changes, { fromPython = false } = {}) {
    const keys = Object.keys(changes).filter((key) => JSON.stringify(changes[key]) !== JSON.stringify(this.state[key]));
    if (!keys.length) return;
    for (const key of keys) this.state[key] = structuredClone(changes[key]);
    if (!fromPython) keys.forEach((key) => (this.touched ??= new Set()).add(key));
    if (keys.includes("model")) this.start();
    this.redraw();
  }

  redraw() {
    if (this.network) this.frameNumber ??= requestAnimationFrame(() => this.frame());
  }

  build() {
    const { image_size: [height, width], name } = this.network.about, of = name.replace(/-discriminator$/, "");
    this.sheet = el("canvas", { class: "dx-sheet", width: 480, height: Math.round((480 * height) / width), "aria-hidden": "true" });
    this.seen = el("canvas", { class: "dx-seen", width, height, role: "img", "aria-label": `What D sees: ${width} by ${height} pixels` });
    this.hint = el("p", { class: "dx-invite", "aria-hidden": "true" }, "Draw a digit here, with mouse, pen or finger");
    this.meter = opinionMeter();
    this.live = el("p", { class: "dx-unseen", "aria-live": "polite" });
    this.note = el("p", { class: "dx-note" });
    this.penBox = el("input", { type: "range", min: 1, max: 6, step: 0.2, class: "dx-range", oninput: () => this.set({ pen: Number(this.penBox.value) }) });
    this.fitBox = el("input", { type: "checkbox", onchange: () => this.set({ fit: this.fitBox.checked }) });
    this.undo = button("Undo", () => this.set({ strokes: this.state.strokes.slice(0, -1) }));
    this.clear = button("Clear", () => this.set({ strokes: [] }));
    const choice = (key) => button(key, () => this.set({ strokes: preset(key) }), { class: "dx-button dx-preset", "aria-label": `Draw ${key.length > 1 ? `a ${key}` : `the digit ${key}`}` });
    const digits = Object.keys(PRESETS).filter((key) => key.length === 1), others = Object.keys(PRESETS).filter((key) => key.length > 1);
    this.cross = el("span", { class: "dx-cross", "aria-hidden": "true" });
    const stage = el("div", { class: "dx-stage dx-paper", tabindex: 0, role: "application", "aria-roledescription": "sheet to draw on",
      "aria-label": "Your drawing: the arrow keys move the pen, with Shift farther; Space puts it down and lifts it; Backspace takes the last stroke away" }, this.sheet, this.hint, this.cross);
    this.listen(stage);
    this.listenToKeys(stage);
    const figure = (inside, words) => el("figure", { class: "dx-figure" }, inside, el("figcaption", {}, words));
    const inside = el("div", { class: "dx dx-judge", role: "group", "aria-label": `Draw for the discriminator ${of}` },
      el("div", { class: "dx-pair" }, figure(stage, "your drawing"),
        figure(el("div", { class: "dx-stage" }, this.seen), `what D sees: ${width} × ${height} pixels`)),
      this.meter.element,
      el("div", { class: "dx-row" }, el("div", { class: "dx-presets", role: "group", "aria-label": "Ready drawings" }, ...digits.map(choice), ...others.map(choice))),
      el("div", { class: "dx-row" }, this.undo, this.clear, el("label", { class: "dx-slider" }, el("span", { class: "dx-slider-name" }, "Pen"), this.penBox, this.penWords = el("span", { class: "dx-value", "aria-hidden": "true" })),
        el("label", { class: "dx-field dx-check" }, this.fitBox, el("span", {}, "Scale and centre, as in MNIST"))),
      el("div", { class: "dx-foot" }, this.note, this.live));
    this.root.replaceChildren(inside);
    this.of = of;
    this.redraw();
  }

  /** Begin a stroke at a point, or lead the last one on to it. */
  put(point, isNew) {
    const { strokes } = this.state;
    if (strokes.flat().length >= MOST_POINTS) return (this.note.textContent = "The drawing is full: clear it to begin anew.");
    this.set({ strokes: isNew ? [...strokes, [point]] : [...strokes.slice(0, -1), [...(strokes.at(-1) ?? []), point]] });
  }

  /** Let keys draw: a pen that the arrows move, up or down. */
  listenToKeys(stage) {
    let pen = [0.5, 0.5], isDown = false;
    const show = () => {
      this.cross.style.setProperty("--x", `${100 * pen[0]}%`);
      this.cross.style.setProperty("--y", `${100 * pen[1]}%`);
      this.cross.classList.toggle("dx-down", isDown);
    };
    const lift = () => {
      isDown = false;
      show();
    };
    stage.addEventListener("blur", lift);
    stage.addEventListener("pointerdown", lift);
    stage.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.125 : 0.03125, [x, y] = pen;
      const moves = { ArrowLeft: [x - step, y], ArrowRight: [x + step, y], ArrowUp: [x, y - step], ArrowDown: [x, y + step] };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in moves) {
        pen = moves[event.key].map(rounded);
        if (isDown) this.put(pen, !this.state.strokes.length); // cleared while the pen was down
      } else if (event.key === " ") {
        isDown = !isDown;
        if (isDown) this.put(pen, true);
        this.live.textContent = isDown ? "Pen down" : "Pen up";
      } else if (event.key === "Backspace") {
        lift();
        this.set({ strokes: this.state.strokes.slice(0, -1) });
      } else return;
      event.preventDefault();
      show();
    });
    show();
  }

  /** Let a pointer draw on the stage: one stroke from press to release. */
  listen(stage) {
    const place = (event) => {
      const box = stage.getBoundingClientRect();
      return [rounded((event.clientX - box.left) / box.width), rounded((event.clientY - box.top) / box.height)];
    };
    let drawing = false;
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault(); // or a drag would select the words around
      stage.focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
      drawing = true;
      this.put(place(event), true);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!drawing) return;
      const [x, y] = place(event), [lastX, lastY] = this.state.strokes.at(-1)?.at(-1) ?? [Infinity, Infinity];
      if (Math.hypot(x - lastX, y - lastY) >= LEAST_STEP) this.put([x, y], !this.state.strokes.length);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) stage.addEventListener(end, () => (drawing = false));
  }

  frame() {
    this.frameNumber = null;
    const { state, network, sheet } = this, { image_size: size } = network.about, [height, width] = size;
    const strokes = state.strokes, levels = rasterise(strokes, size, state.pen, state.fit), image = new ImageData(width, height);
    levels.forEach((level, p) => image.data.set([level, level, level, 255], 4 * p));
    this.seen.getContext("2d").putImageData(image, 0, 0);
    this.draw(sheet, strokes, (state.pen * sheet.width) / width);
    const started = performance.now();
    this.opinion = network.probability(levels);
    const took = performance.now() - started;
    this.time = this.time ? 0.8 * this.time + 0.2 * took : took;
    this.meter.show(this.opinion);
    this.hint.hidden = strokes.length > 0;
    this.undo.disabled = this.clear.disabled = !strokes.length;
    this.penBox.value = state.pen;
    this.penWords.textContent = `${Number(state.pen).toFixed(1)} px`;
    this.penBox.setAttribute("aria-valuetext", `${Number(state.pen).toFixed(1)} of D’s pixels`);
    this.fitBox.checked = state.fit;
    Object.assign(this.root.dataset, { ready: "", opinion: this.opinion.toFixed(4) });
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settle(), 350);
  }

  /** Draw the strokes as they were drawn, smooth. */
  draw(canvas, strokes, thickness) {
    const context = canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    Object.assign(context, { strokeStyle: "#fff", lineWidth: thickness, lineCap: "round", lineJoin: "round" });
    for (const stroke of strokes) {
      context.beginPath();
      for (const [x, y] of [...stroke, stroke.at(-1)]) context.lineTo(x * canvas.width, y * canvas.height);
      context.stroke();
    }
  }

  /** After a pause, tell Python and the screen reader. */
  settle() {
    this.tellTime();
    if (!this.touched?.size) return;
    this.changed([...this.touched], this.state);
    this.touched.clear();
    this.live.textContent = `${this.state.strokes.length ? "" : "An empty picture. "}${opinionWords(this.opinion)}`;
  }

  tellTime() {
    this.note.textContent = `The discriminator “${this.of}” runs in this page, ${Math.max(1, Math.round(this.time))} ms a picture`;
  }

  destroy() {
    cancelAnimationFrame(this.frameNumber);
    clearTimeout(this.settling);
  }
}

// --- Mounting: a static page, or a widget in a live notebook ---

/** Bring a mount point of a page to life once it comes into view. */
function mount(element, settings = JSON.parse(element.dataset.judge || "{}")) {
  const judge = new Judge(element, settings);
  element.judge = judge; // for whoever wants to drive it from the console
  const watch = new IntersectionObserver((seen) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    judge.start();
  }, { rootMargin: "300px" });
  watch.observe(element);
  return judge;
}

/** Show the widget in a notebook: its state is the Python object's, both ways. */
function render({ model, el: host }) {
  const keys = Object.keys(DEFAULTS), settings = Object.fromEntries(keys.map((key) => [key, model.get(key)]));
  const root = el("div", { class: "dcgan-judge" }, el("p", { class: "dx-note" }, "Waiting for the discriminator’s weights…"));
  const judge = new Judge(root, settings, {
    load: (name, network) => loadFromKernel(model, name, network),
    changed: (touched, state) => {
      for (const key of touched) model.set(key, structuredClone(state[key]));
      model.save_changes();
    },
  });
  root.judge = judge;
  const listeners = keys.map((key) => [`change:${key}`, () => judge.set({ [key]: model.get(key) }, { fromPython: true })]);
  for (const [event, listener] of listeners) model.on(event, listener);
  host.append(root);
  judge.start();
  return () => {
    for (const [event, listener] of listeners) model.off(event, listener);
    judge.destroy();
  };
}

export default { render };
