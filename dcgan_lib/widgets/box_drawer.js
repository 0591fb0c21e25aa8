// The box drawer: shows a generator's pictures one after another, enlarged, and lets one draw boxes by mouse or keys.
// anywidget imports this file, after elements.js, in a notebook with a kernel; a page without one shows a sentence.
// A box is [picture, left, top, right, bottom] in pixels, right and bottom exclusive; a box of one picture leaves the
// first number out. Sections: boxes, the drawer.

// --- Boxes ---

/** Return the box between two corners, at least one pixel wide and inside the picture. */
function between([x0, y0], [x1, y1], { width, height }) {
  const side = (a, b, most) => {
    const low = limit(Math.floor(Math.min(a, b)), 0, most - 1);
    return [low, limit(Math.ceil(Math.max(a, b)), low + 1, most)];
  };
  const [left, right] = side(x0, x1, width), [top, bottom] = side(y0, y1, height);
  return [left, top, right, bottom];
}

/** Return which box a point is in, the smallest if there are several; -1 for none. */
function hit(boxes, [x, y]) {
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  const inside = boxes.map((box, i) => [box, i]).filter(([[left, top, right, bottom]]) => x >= left && x < right && y >= top && y < bottom);
  inside.sort(([a], [b]) => area(a) - area(b));
  return inside.length ? inside[0][1] : -1;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Return a box moved by an arrow key, or, with the right lower corner alone, resized. */
function nudge([left, top, right, bottom], key, resize, { width, height }) {
  const [dx, dy] = ARROWS[key];
  if (resize) return [left, top, limit(right + dx, left + 1, width), limit(bottom + dy, top + 1, height)];
  const x = limit(dx, -left, width - right), y = limit(dy, -top, height - bottom);
  return [left + x, top + y, right + x, bottom + y];
}

/** Return a new box in the middle, a third of the picture wide. */
function fresh({ width, height }) {
  const third = (side) => Math.max(1, Math.floor(side / 3));
  return [third(width), third(height), 2 * third(width), 2 * third(height)];
}

// --- The drawer ---

const words = ([left, top, right, bottom]) => `${left} to ${right} across, ${top} to ${bottom} down`;
const KEYS = "arrow keys move the chosen box, with Shift they resize it; Enter adds one, N chooses the next, Delete takes it away; Page Up and Page Down turn to another picture";
const SCALE = 8;

class Drawer {
  constructor(model) {
    Object.assign(this, { model, chosen: -1, pictures: new Map(), drag: null });
    this.size = { width: model.get("width"), height: model.get("height") };
    const canvas = el("canvas", { width: SCALE * this.size.width, height: SCALE * this.size.height, "aria-hidden": "true" });
    this.canvas = canvas;
    const label = `Picture with boxes: ${KEYS}`;
    this.stage = el("div", { class: "dx-stage", tabindex: 0, role: "application", "aria-roledescription": "drawing area", "aria-label": label, style: "width: min(100%, 32rem); margin: 0 auto; touch-action: none; cursor: crosshair" }, canvas);
    this.number = el("input", { type: "number", class: "dx-seed", min: 0, max: model.get("num_images") - 1, step: 1, inputmode: "numeric", onchange: () => this.turn(this.number.value === "" ? this.index : Math.floor(Number(this.number.value))) });
    this.count = el("p", { class: "dx-hint" });
    this.live = el("p", { class: "dx-live", "aria-live": "polite" });
    const hint = el("p", { class: "dx-note" }, `Drag to draw a box around each ${model.get("object")}; click in a box to take it away. Keys: ${KEYS}.`);
    const row = el("div", { class: "dx-row" }, button("Previous", () => this.turn(this.index - 1)), button("Next", () => this.turn(this.index + 1)),
      el("label", { class: "dx-field" }, el("span", {}, "Picture"), this.number), button("Add box", () => this.add(fresh(this.size))), button("Remove box", () => this.remove(this.chosen)));
    this.root = el("div", { class: "dcgan-explorer" }, el("div", { class: "dx", role: "group", "aria-label": `Boxes around each ${model.get("object")}` }, this.stage, row, el("div", { class: "dx-foot" }, this.count, this.live), hint));
    this.root.addEventListener("keydown", (event) => event.stopPropagation()); // or Lab takes the arrow keys
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("pointerdown", (event) => this.press(event));
    this.stage.addEventListener("pointermove", (event) => this.drag && this.move(event));
    this.stage.addEventListener("pointerup", (event) => this.drag && this.release(event));
    this.stage.addEventListener("pointercancel", () => this.drop());
  }

  get index() {
    return this.model.get("index");
  }

  get boxes() {
    return this.model.get("boxes").filter(([index]) => index === this.index).map(([, ...box]) => box);
  }

  /** Put other boxes on this picture; Python checks and saves them. */
  put(boxes, chosen, said) {
    const others = this.model.get("boxes").filter(([index]) => index !== this.index);
    this.chosen = limit(chosen, -1, boxes.length - 1);
    this.model.set("boxes", [...others, ...boxes.map((box) => [this.index, ...box])].sort((a, b) => a[0] - b[0]));
    this.model.save_changes();
    this.say(said);
    this.show();
  }

  add(box) {
    this.put([...this.boxes, box], this.boxes.length, `Box added, ${words(box)}`);
  }

  remove(i) {
    if (this.boxes[i]) this.put(this.boxes.filter((_, j) => j !== i), i - 1, "Box taken away");
  }

  turn(index) {
    const to = limit(index, 0, this.model.get("num_images") - 1);
    if (to !== this.index) {
      this.model.set("index", to);
      this.model.save_changes();
    }
    this.arrive();
    this.number.value = this.index; // what was typed may lie beyond the last picture
  }

  /** Show the picture that the index names. */
  arrive() {
    this.chosen = this.boxes.length - 1;
    this.say(`Picture ${this.index}, ${this.boxes.length} ${this.boxes.length === 1 ? "box" : "boxes"}`);
    this.show();
  }

  say(text) {
    this.live.textContent = text;
  }

  key(event) {
    const { boxes, chosen } = this;
    const pages = { PageUp: -1, PageDown: 1 }, key = event.key;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (key in ARROWS && boxes[chosen]) {
      const box = nudge(boxes[chosen], key, event.shiftKey, this.size);
      this.put(boxes.map((old, i) => (i === chosen ? box : old)), chosen, words(box));
    } else if (key === "Enter") this.add(fresh(this.size));
    else if (key === "Delete" || key === "Backspace") this.remove(chosen);
    else if (key in pages) this.turn(this.index + pages[key]);
    else if (key.toLowerCase() === "n" && boxes.length) {
      this.chosen = (chosen + 1) % boxes.length;
      this.say(`Box ${this.chosen + 1} of ${boxes.length}, ${words(boxes[this.chosen])}`);
      this.show();
    } else if (!(key in ARROWS)) return;
    event.preventDefault();
  }

  point(event) {
    const place = this.canvas.getBoundingClientRect();
    return [((event.clientX - place.left) * this.size.width) / place.width, ((event.clientY - place.top) * this.size.height) / place.height];
  }

  press(event) {
    if (event.button) return;
    this.stage.setPointerCapture(event.pointerId);
    this.drag = { from: this.point(event), to: this.point(event) };
  }

  move(event) {
    this.drag.to = this.point(event);
    this.show();
  }

  release(event) {
    this.move(event);
    const { from, to } = this.drag, far = Math.max(Math.abs(from[0] - to[0]), Math.abs(from[1] - to[1])), i = hit(this.boxes, from);
    this.drop();
    if (far >= 2) this.add(between(from, to, this.size));
    else if (i >= 0) this.remove(i);
  }

  drop() {
    this.drag = null;
    this.show();
  }

  /** Take a picture that Python sent. */
  take({ type, index }, view) {
    if (type !== "picture") return;
    const pixels = new Uint8ClampedArray(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength).slice();
    const canvas = el("canvas", this.size);
    canvas.getContext("2d").putImageData(new ImageData(pixels, this.size.width, this.size.height), 0, 0);
    this.pictures.set(index, canvas);
    this.show();
  }

  /** Draw the picture and its boxes; ask for it, and for the next one, if it has not come. */
  show() {
    const { index, boxes } = this, last = this.model.get("num_images") - 1, all = this.model.get("boxes");
    for (const i of [index, Math.min(index + 1, last)]) {
      if (this.pictures.has(i)) continue;
      this.pictures.set(i, null);
      this.model.send({ type: "need picture", index: i });
    }
    const context = this.canvas.getContext("2d"), picture = this.pictures.get(index);
    context.imageSmoothingQuality = "high"; // a window is easier to see without the edges of its pixels
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (picture) context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
    boxes.forEach((box, i) => this.frame(box, i === this.chosen));
    if (this.drag) this.frame(between(this.drag.from, this.drag.to, this.size), true);
    if (document.activeElement !== this.number) this.number.value = index;
    this.count.textContent = `${boxes.length} here; ${all.length} in ${new Set(all.map(([i]) => i)).size} of ${last + 1} pictures`;
    if (picture) this.root.dataset.ready = index;
  }

  /** Outline a box: black under yellow, thick where it is chosen. */
  frame([left, top, right, bottom], isChosen) {
    const context = this.canvas.getContext("2d");
    for (const [colour, line] of [["#000", isChosen ? 9 : 5], ["#ffdd00", isChosen ? 5 : 2]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: line });
      context.strokeRect(SCALE * left, SCALE * top, SCALE * (right - left), SCALE * (bottom - top));
    }
  }
}

function render({ model, el: host }) {
  const drawer = new Drawer(model);
  const follow = { "change:boxes": () => drawer.show(), "change:index": () => drawer.arrive(), "msg:custom": (message, buffers) => drawer.take(message, buffers[0]) };
  for (const [event, listener] of Object.entries(follow)) model.on(event, listener);
  host.append(drawer.root);
  drawer.show();
  return () => {
    for (const [event, listener] of Object.entries(follow)) model.off(event, listener);
  };
}

export default { render };
