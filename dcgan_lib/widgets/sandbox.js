// The sandbox: a GAN on points in the plane that trains in the page, in plain JavaScript.
// In a notebook anywidget imports this file, after elements.js, as a module; the book loads them as a classic script in
// which the last line is replaced by one that mounts every element of class dcgan-sandbox.
// Points lie one after another in a Float64Array: x0, y0, x1, y1, ... Suffixes: n points, b of a batch, o outputs, i inputs.
// Sections: numbers, targets, networks, the game, field and score, settings and address, presets, drawing, the sandbox, mounting.

// --- Numbers ---

/** Random numbers from a 32-bit seed: mulberry32 for uniform ones, Box and Muller for normal ones. */
class Random {
  constructor(seed) {
    this.state = seed >>> 0;
    this.spare = null;
  }

  uniform() {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  normal() {
    if (this.spare !== null) {
      const z = this.spare;
      this.spare = null;
      return z;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform())), angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  below(n) {
    return Math.floor(n * this.uniform());
  }
}

// --- Targets: where the real points come from. The plane that is shown reaches from -REACH to REACH. ---

const REACH = 2;

function ring(count, radius) {
  return Array.from({ length: count }, (_, i) => {
    const angle = (2 * Math.PI * i) / count;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}

function grid(side, gap) {
  const centre = (side - 1) / 2;
  return Array.from({ length: side * side }, (_, i) => [gap * ((i % side) - centre), gap * (Math.floor(i / side) - centre)]);
}

// A target of Gaussians has their centres, of equal weight, and one standard deviation.
const TARGETS = {
  ring: { name: "ring of 8 Gaussians", sd: 0.1, modes: ring(8, 1.4) },
  grid9: { name: "grid of 9 Gaussians", sd: 0.1, modes: grid(3, 1.2) },
  grid25: { name: "grid of 25 Gaussians", sd: 0.06, modes: grid(5, 0.75) },
  moons: { name: "two moons", sd: 0.08, modes: [] },
  gaussian: { name: "one Gaussian", sd: 0.2, modes: [[1, 0.8]] },
  own: { name: "draw your own", sd: 0.06, modes: [] },
};

/** Return n real points of a target; `drawn` are the points that a reader has put down, for the target `own`. */
function samplePoints(target, n, random, drawn = []) {
  const { sd, modes } = TARGETS[target], points = new Float64Array(2 * n), dots = target === "own" ? drawn : modes;
  for (let p = 0; p < 2 * n; p += 2) {
    let x = 0, y = 0;
    if (target === "moons") {
      const upper = random.uniform() < 0.5, angle = Math.PI * random.uniform();
      x = upper ? Math.cos(angle) - 0.5 : 0.5 - Math.cos(angle);
      y = upper ? Math.sin(angle) - 0.25 : 0.25 - Math.sin(angle);
    } else if (dots.length) {
      [x, y] = dots[random.below(dots.length)];
    }
    points[p] = x + sd * random.normal();
    points[p + 1] = y + sd * random.normal();
  }
  return points;
}

// --- Networks ---

const SLOPE = 0.2; // of LeakyReLU below zero, as in the paper's discriminator
const BIAS_SD = 0.5; // of the biases at the start; our choice

/** Fully connected layers with LeakyReLU between them. All parameters lie in one array: each layer's weights (o x i), then its biases. */
class Network {
  constructor(sizes, random) {
    this.sizes = sizes;
    this.layers = [];
    let size = 0;
    for (let l = 0; l + 1 < sizes.length; l++) {
      const inputs = sizes[l], outputs = sizes[l + 1];
      this.layers.push({ inputs, outputs, weight: size, bias: size + inputs * outputs });
      size += (inputs + 1) * outputs;
    }
    this.params = new Float64Array(size);
    this.grads = new Float64Array(size);
    for (const { inputs, outputs, weight, bias } of this.layers) {
      const sd = Math.sqrt(2 / (1 + SLOPE * SLOPE) / inputs); // He's rule: the size of activations stays about the same
      for (let k = weight; k < bias; k++) this.params[k] = sd * random.normal();
      // Without biases every crease of D would begin in the middle of the plane, and learn slowly to leave it.
      for (let k = bias; k < bias + outputs; k++) this.params[k] = BIAS_SD * random.normal();
    }
    this.room = 0;
  }

  /** Make room for the activations and their gradients of n points. */
  reserve(n) {
    if (n <= this.room) return;
    this.room = n;
    this.outs = this.sizes.map((size) => new Float64Array(n * size));
    this.deltas = this.sizes.map((size) => new Float64Array(n * size));
  }

  /** Return the outputs of n points; they stand until the next call. */
  forward(points, n) {
    this.reserve(n);
    this.outs[0].set(points.subarray(0, n * this.sizes[0]));
    const { params } = this, last = this.layers.length - 1;
    for (let l = 0; l <= last; l++) {
      const { inputs, outputs, weight, bias } = this.layers[l], from = this.outs[l], to = this.outs[l + 1];
      for (let b = 0; b < n; b++) {
        for (let o = 0; o < outputs; o++) {
          let sum = params[bias + o];
          for (let i = 0, w = weight + o * inputs, h = b * inputs; i < inputs; i++) sum += params[w + i] * from[h + i];
          to[b * outputs + o] = l < last && sum < 0 ? SLOPE * sum : sum;
        }
      }
    }
    return this.outs[last + 1];
  }

  /** Go back from the loss's gradient at the outputs of the last `forward` of n points; add to `grads` if asked to, and return the gradient at the inputs. */
  backward(delta, n, addsToGrads = true) {
    const { params, grads } = this, last = this.layers.length - 1;
    this.deltas[last + 1].set(delta.subarray(0, n * this.sizes[last + 1]));
    for (let l = last; l >= 0; l--) {
      const { inputs, outputs, weight, bias } = this.layers[l];
      const out = this.outs[l + 1], from = this.outs[l], dTo = this.deltas[l + 1], dFrom = this.deltas[l];
      dFrom.fill(0, 0, n * inputs);
      for (let b = 0; b < n; b++) {
        const h = b * inputs;
        for (let o = 0; o < outputs; o++) {
          const at = b * outputs + o, d = l < last && out[at] < 0 ? SLOPE * dTo[at] : dTo[at], w = weight + o * inputs;
          for (let i = 0; i < inputs; i++) dFrom[h + i] += d * params[w + i];
          if (!addsToGrads) continue;
          for (let i = 0; i < inputs; i++) grads[w + i] += d * from[h + i];
          grads[bias + o] += d;
        }
      }
    }
    return this.deltas[0];
  }
}

/** Adam (Kingma and Ba 2015), without weight decay. */
class Adam {
  constructor(network) {
    this.network = network;
    this.mean = new Float64Array(network.params.length); // of the gradient
    this.square = new Float64Array(network.params.length); // of its square
    this.steps = 0;
    this.decay1 = 1; // the product of all beta1 so far, which a reader may change midway
    this.decay2 = 1;
  }

  /** Move the parameters once, and empty the gradients. */
  step(learningRate, beta1, beta2 = 0.999, eps = 1e-8) {
    const { mean, square } = this, { params, grads } = this.network;
    this.steps += 1;
    this.decay1 *= beta1;
    this.decay2 *= beta2;
    for (let k = 0; k < params.length; k++) {
      const g = grads[k];
      mean[k] = beta1 * mean[k] + (1 - beta1) * g;
      square[k] = beta2 * square[k] + (1 - beta2) * g * g;
      const step = mean[k] / (1 - this.decay1), size = Math.sqrt(square[k] / (1 - this.decay2));
      params[k] -= (learningRate * step) / (size + eps);
      grads[k] = 0;
    }
  }
}

// --- The game ---

const BATCH = 64, Z_DIM = 2, SHOWN = 400;
const softplus = (x) => (x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x))); // log(1 + e^x)
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** Two networks and their two optimizers. A round is `d_updates` of D and then `g_updates` of G, each on a fresh batch. */
class Game {
  /** settings: target, points (those of the target `own`), learning_rate, beta1, loss, d_updates, g_updates, width, seed; all but width and seed may change while it runs. */
  constructor(settings) {
    this.settings = settings;
    const { seed, width } = settings;
    this.random = new Random(seed);
    this.generator = new Network([Z_DIM, width, width, 2], this.random);
    this.discriminator = new Network([2, width, width, 1], this.random);
    this.gAdam = new Adam(this.generator);
    this.dAdam = new Adam(this.discriminator);
    this.shownZ = this.latents(SHOWN, new Random(seed ^ 0x9e3779b9)); // the picture follows the same points
    this.delta = new Float64Array(BATCH);
    this.rounds = 0;
    this.dLoss = NaN;
    this.gLoss = NaN;
  }

  /** Return n latent vectors, standard normal. */
  latents(n, random = this.random) {
    return Float64Array.from({ length: n * Z_DIM }, () => random.normal());
  }

  reals(n, random = this.random) {
    return samplePoints(this.settings.target, n, random, this.settings.points);
  }

  round() {
    const { d_updates, g_updates } = this.settings;
    for (let k = 0; k < d_updates; k++) this.dLoss = this.updateD(this.reals(BATCH), this.latents(BATCH));
    for (let k = 0; k < g_updates; k++) this.gLoss = this.updateG(this.latents(BATCH));
    if (!g_updates) this.gLoss = this.judge(this.generator.forward(this.latents(BATCH), BATCH), BATCH).loss; // G rests, but its loss is still told
    this.rounds += 1;
  }

  /** Move D once: real points towards 1, generated ones towards 0. Return its loss, that of both halves summed. */
  updateD(real, z) {
    const { learning_rate, beta1 } = this.settings, { discriminator, delta } = this, n = BATCH;
    const fake = this.generator.forward(z, n).slice(0, 2 * n);
    let loss = 0;
    for (const [points, isReal] of [[real, true], [fake, false]]) {
      const logits = discriminator.forward(points, n);
      for (let b = 0; b < n; b++) {
        loss += softplus(isReal ? -logits[b] : logits[b]) / n;
        delta[b] = (sigmoid(logits[b]) - (isReal ? 1 : 0)) / n;
      }
      discriminator.backward(delta, n);
    }
    this.dAdam.step(learning_rate, beta1);
    return loss;
  }

  /** Move G once, through D, which stays as it is. Return G's loss. */
  updateG(z) {
    const { learning_rate, beta1 } = this.settings, n = BATCH;
    const { loss, pull } = this.judge(this.generator.forward(z, n), n);
    this.generator.backward(pull, n);
    this.gAdam.step(learning_rate, beta1);
    return loss;
  }

  /** Return G's loss on n points and its gradient at each point.
   *  Non-saturating: mean of -log D. Minimax: mean of log(1 - D), whose gradient vanishes where D is near 0. */
  judge(points, n) {
    const logits = this.discriminator.forward(points, n), delta = new Float64Array(n), saturates = this.settings.loss === "minimax";
    let loss = 0;
    for (let b = 0; b < n; b++) {
      loss += (saturates ? -softplus(logits[b]) : softplus(-logits[b])) / n;
      delta[b] = (saturates ? -sigmoid(logits[b]) : sigmoid(logits[b]) - 1) / n;
    }
    return { loss, pull: this.discriminator.backward(delta, n, false) };
  }

  /** Return G's points of the latent vectors that are shown. */
  generated() {
    return this.generator.forward(this.shownZ, SHOWN).slice(0, 2 * SHOWN);
  }

  /** Return D's probability that a point is real, on a square grid over the plane: row by row from the top. */
  field(side) {
    if (this.mesh?.length !== 2 * side * side) {
      this.mesh = new Float64Array(2 * side * side);
      for (let row = 0, p = 0; row < side; row++)
        for (let column = 0; column < side; column++, p += 2) {
          this.mesh[p] = REACH * ((2 * column) / (side - 1) - 1);
          this.mesh[p + 1] = REACH * (1 - (2 * row) / (side - 1));
        }
    }
    return this.discriminator.forward(this.mesh, side * side).slice(0, side * side).map(sigmoid);
  }
}

// --- Score ---

/** Return how many Gaussians of a target the points cover, the points near each, and which share of the points lies near one.
 *  A point is near a Gaussian within 3 standard deviations of its centre; a Gaussian is covered by at least a quarter of its fair share of the points. */
function coverage(target, points) {
  const { modes, sd } = TARGETS[target], n = points.length / 2, counts = modes.map(() => 0);
  let near = 0;
  for (let p = 0; p < 2 * n; p += 2) {
    const at = modes.findIndex(([x, y]) => Math.hypot(points[p] - x, points[p + 1] - y) <= 3 * sd);
    if (at < 0) continue;
    counts[at] += 1;
    near += 1;
  }
  const needed = n / modes.length / 4;
  return { counts, needed, covered: counts.filter((count) => count >= needed).length, of: modes.length, near: near / n };
}

// --- Settings and address ---

// What a reader sets; each key is a trait of the Python class. The plain values are a game that converges.
const DEFAULTS = {
  target: "ring", learning_rate: 0.003, beta1: 0.5, loss: "non-saturating", d_updates: 1, g_updates: 1, width: 32, seed: 1, points: [],
};
const LOSSES = { "non-saturating": "non-saturating: −log D", minimax: "minimax: log(1 − D)" };
const RATES = [0.0001, 0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05];
const BETAS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];
const UPDATES = [0, 1, 2, 3, 5, 10, 20];
const WIDTHS = [2, 4, 8, 16, 32, 64];
const SPEEDS = [[5, "5 rounds/s"], [20, "20 rounds/s"], [60, "60 rounds/s"], [200, "200 rounds/s"], [Infinity, "as fast as it goes"]];
const RESTARTS = ["target", "width", "seed"]; // a change of these begins a new game
const MOST_POINTS = 300;

/** Return a heart, the drawing that a reader finds there at first. */
function heart() {
  return Array.from({ length: 40 }, (_, i) => {
    const t = (2 * Math.PI * i) / 40;
    return [1.4 * Math.sin(t) ** 3, (13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) - Math.cos(4 * t)) / 11 + 0.2].map(hundredths);
  });
}

const hundredths = (x) => Math.round(100 * x) / 100;

/** Return settings in which every value is possible; what is not is replaced by the value of `instead`. */
function tidy(settings, instead = DEFAULTS) {
  const number = (key, low, high, round = (x) => x) => {
    const value = Number(settings[key]);
    return Number.isFinite(value) ? round(limit(value, low, high)) : instead[key];
  };
  const one = (key, known) => (Object.hasOwn(known, settings[key]) ? settings[key] : instead[key]);
  const points = Array.isArray(settings.points) ? settings.points : [];
  return {
    target: one("target", TARGETS),
    learning_rate: number("learning_rate", 1e-6, 0.1),
    beta1: number("beta1", 0, 0.999),
    loss: one("loss", LOSSES),
    d_updates: number("d_updates", 0, 20, Math.round),
    g_updates: number("g_updates", 0, 20, Math.round),
    width: number("width", 1, 128, Math.round),
    seed: number("seed", 0, 2 ** 32 - 1, Math.round),
    points: points.slice(0, MOST_POINTS).filter((point) => point?.length === 2 && point.every(Number.isFinite)).map((point) => point.map((x) => limit(hundredths(x), -REACH, REACH))),
  };
}

/** Return settings in which a reader who is to draw finds a heart, not nothing. */
const begun = (settings) => (settings.target === "own" && !settings.points.length ? { ...settings, points: heart() } : settings);

const equal = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** Write settings that differ from others: target:ring;beta1:0.9. Drawn points are whole hundredths: points:10,-25,... */
function encode(settings, others) {
  const write = (key) => (key === "points" ? settings.points.flat().map((x) => Math.round(100 * x)).join(",") : settings[key]);
  return Object.keys(DEFAULTS).filter((key) => !equal(settings[key], others[key])).map((key) => `${key}:${write(key)}`).join(";");
}

/** Read what `encode` wrote; what is broken or unknown is left out. */
function decode(text) {
  const found = {};
  for (const pair of text.split(";")) {
    const [key, value] = pair.split(":");
    if (!Object.hasOwn(DEFAULTS, key) || !value) continue;
    if (key === "points") {
      const numbers = value.split(",").map((x) => Number(x) / 100);
      found.points = Array.from({ length: numbers.length >> 1 }, (_, i) => numbers.slice(2 * i, 2 * i + 2));
    } else if (typeof DEFAULTS[key] === "string") found[key] = value;
    else if (Number.isFinite(Number(value))) found[key] = Number(value);
  }
  return found;
}

const entries = () => location.hash.slice(1).split("&").filter(Boolean);

/** Return the settings that the page's address gives to one sandbox: #s1=target:moons;seed:4. */
function readAddress(space) {
  const part = entries().find((entry) => entry.startsWith(`${space}=`)) ?? "";
  return decode(part.slice(space.length + 1));
}

/** Return the page's address with one sandbox's settings in place of the old. */
function writeAddress(space, text) {
  const parts = entries().filter((entry) => !entry.startsWith(`${space}=`) && !entry.startsWith("at="));
  if (text) parts.push(`${space}=${text}`);
  return location.href.split("#")[0] + (parts.length ? `#${parts.join("&")}` : "");
}

// --- Presets: each is a question with settings that answer it; test_sandbox.py holds what they say ---

const PRESETS = [
  { name: "It converges", settings: {},
    says: "D and G move in turn, and by about round 1,000 G’s points cover all eight Gaussians. Inside the circles D can then hardly tell: its colour fades there, and both losses stay near their dotted lines." },
  { name: "Mode collapse", settings: { learning_rate: 0.005, g_updates: 5 },
    says: "G moves five times for each move of D, so all its points run to the one place that D trusts most. D then learns to distrust that place, and the whole heap jumps on: it is at one Gaussian at a time, or at two in passing." },
  { name: "Collapse cured", settings: { learning_rate: 0.005 },
    says: "The same game, but G moves only once a round. D keeps up, its gradient differs from place to place, and G’s points spread over the ring." },
  { name: "Vanishing gradient", settings: { target: "gaussian", learning_rate: 0.005, loss: "minimax", d_updates: 10, g_updates: 0 },
    says: "D trains alone until it is sure of itself, and under log(1 − D) the arrows on G’s points shrink to nothing. Now choose −log D as G’s loss: the same D gives long arrows. Then let G move once a round." },
  { name: "β₁ = 0.9 swings", settings: { target: "gaussian", learning_rate: 0.01, beta1: 0.9 },
    says: "With so much momentum G overshoots the Gaussian and D overshoots after it, so the cloud swings around its goal. Set β₁ to 0.5, the paper’s choice, and reset: the swing becomes about half as wide." },
];

// --- Drawing ---

const SIDE = 41; // of the grid on which D is asked
const ARROWS = 70, LONGEST = 0.35, PER_GRADIENT = 0.1; // of arrows: how many, and their length in the plane
const REALS = 220;

/** Return a colour as three numbers; `name` is a custom property that holds #rrggbb. */
function rgb(style, name) {
  const hex = style.getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** Give each end of every piece of the line where a square grid of values crosses a level (marching squares): [x0, y0, x1, y1] in cells. */
function contour(values, side, level) {
  const pieces = [], at = (row, column) => values[row * side + column] - level;
  for (let row = 0; row + 1 < side; row++) {
    for (let column = 0; column + 1 < side; column++) {
      const corners = [[column, row], [column + 1, row], [column + 1, row + 1], [column, row + 1]];
      const heights = corners.map(([x, y]) => at(y, x)), crossings = [];
      for (let i = 0; i < 4; i++) {
        const j = (i + 1) % 4;
        if (heights[i] < 0 === heights[j] < 0) continue;
        const t = heights[i] / (heights[i] - heights[j]);
        crossings.push(corners[i][0] + t * (corners[j][0] - corners[i][0]), corners[i][1] + t * (corners[j][1] - corners[i][1]));
      }
      for (let k = 0; k + 3 < crossings.length; k += 4) pieces.push(crossings.slice(k, k + 4));
    }
  }
  return pieces;
}

/** The plane: D's opinion as colour, the real and the generated points, where D pulls the latter. */
class Plane {
  constructor() {
    this.canvas = el("canvas", { class: "sx-plane", "aria-hidden": "true" });
    this.small = el("canvas", { width: SIDE, height: SIDE });
  }

  fit() {
    const size = Math.round((this.canvas.clientWidth || 480) * Math.min(2, devicePixelRatio || 1));
    if (this.canvas.width !== size) this.canvas.width = this.canvas.height = size;
    return size;
  }

  draw(game, real, generated, { arrows, probe }) {
    const size = this.fit(), context = this.canvas.getContext("2d"), style = getComputedStyle(this.canvas);
    const unit = size / (2 * REACH), dot = size / 480; // one of the plane's units, one of a usual screen's pixels
    const place = (x, y) => [(x + REACH) * unit, (REACH - y) * unit];
    const [realRgb, fakeRgb] = [rgb(style, "--sx-real"), rgb(style, "--sx-fake")].map((c) => `rgb(${c})`);
    context.clearRect(0, 0, size, size);
    const field = game.field(SIDE);
    this.paintField(context, field, size, ["--sx-says-fake", "--sx-unsure", "--sx-says-real"].map((name) => rgb(style, name)));
    this.drawModes(context, game.settings.target, generated, place, unit, dot, style.color);
    context.lineCap = "round";
    context.strokeStyle = style.color;
    context.globalAlpha = 0.75;
    context.lineWidth = 1.5 * dot;
    context.beginPath();
    const cell = size / (SIDE - 1);
    for (const [x0, y0, x1, y1] of contour(field, SIDE, 0.5)) {
      context.moveTo(x0 * cell, y0 * cell);
      context.lineTo(x1 * cell, y1 * cell);
    }
    context.stroke();
    context.globalAlpha = 1;
    context.strokeStyle = realRgb;
    context.lineWidth = 1.2 * dot;
    for (let p = 0; p < real.length; p += 2) ringAt(context, place(real[p], real[p + 1]), 2.9 * dot);
    context.fillStyle = fakeRgb;
    for (let p = 0; p < generated.length; p += 2) discAt(context, place(generated[p], generated[p + 1]), 2.2 * dot);
    if (arrows) this.drawArrows(context, game, generated, place, dot, fakeRgb, `rgb(${rgb(style, "--sx-unsure")})`);
    if (probe) this.drawProbe(context, place(...probe), dot, style.color);
  }

  /** Colour the plane; the square root shows small differences, and the legend's scale is made alike. */
  paintField(context, field, size, [fake, unsure, real]) {
    const image = new ImageData(SIDE, SIDE);
    for (let k = 0; k < field.length; k++) {
      const t = 2 * field[k] - 1, end = t < 0 ? fake : real, much = Math.sqrt(Math.abs(t));
      for (let c = 0; c < 3; c++) image.data[4 * k + c] = unsure[c] + much * (end[c] - unsure[c]);
      image.data[4 * k + 3] = 255;
    }
    this.small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    const cell = size / (SIDE - 1); // the outermost values lie on the edge, so half a cell is cut off
    context.drawImage(this.small, -cell / 2, -cell / 2, size + cell, size + cell);
  }

  /** Circle what counts as near each Gaussian: a full line where it is covered. */
  drawModes(context, target, generated, place, unit, dot, ink) {
    const { modes, sd } = TARGETS[target], { counts, needed } = coverage(target, generated);
    context.strokeStyle = ink;
    context.lineWidth = 1.2 * dot;
    modes.forEach(([x, y], i) => {
      const isCovered = counts[i] >= needed;
      context.globalAlpha = isCovered ? 0.8 : 0.35;
      context.setLineDash(isCovered ? [] : [2 * dot, 3 * dot]);
      ringAt(context, place(x, y), 3 * sd * unit);
    });
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  /** Show where D's gradient moves G's points: its direction, and its length up to a longest arrow. */
  drawArrows(context, game, generated, place, dot, colour, halo) {
    const n = Math.min(ARROWS, SHOWN), { pull } = game.judge(generated, n);
    const lines = [];
    for (let p = 0; p < 2 * n; p += 2) {
      const [dx, dy] = [-pull[p] * n, -pull[p + 1] * n], length = Math.hypot(dx, dy), wanted = Math.min(LONGEST, PER_GRADIENT * length);
      if (wanted < 0.015) continue;
      const [x, y] = [generated[p], generated[p + 1]], scale = wanted / length;
      const [from, to] = [place(x, y), place(x + dx * scale, y + dy * scale)];
      lines.push([from, to, Math.atan2(to[1] - from[1], to[0] - from[0])]);
    }
    for (const [stroke, line] of [[halo, 3.2], [colour, 1.4]]) {
      context.strokeStyle = stroke;
      context.lineWidth = line * dot;
      context.beginPath();
      for (const [from, to, angle] of lines) {
        context.moveTo(...from);
        context.lineTo(...to);
        for (const turn of [2.6, -2.6]) {
          context.moveTo(...to);
          context.lineTo(to[0] + 5 * dot * Math.cos(angle + turn), to[1] + 5 * dot * Math.sin(angle + turn));
        }
      }
      context.stroke();
    }
  }

  drawProbe(context, [x, y], dot, ink) {
    context.strokeStyle = ink;
    context.lineWidth = 1.5 * dot;
    ringAt(context, [x, y], 7 * dot);
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 7 * dot * dx, y + 7 * dot * dy);
      context.lineTo(x + 12 * dot * dx, y + 12 * dot * dy);
    }
    context.stroke();
  }
}

function ringAt(context, [x, y], radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.stroke();
}

function discAt(context, [x, y], radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

const KEPT = 240;

/** Both losses since the beginning: when the list is full, neighbours are joined to their mean. */
class Losses {
  constructor() {
    Object.assign(this, { d: [], g: [], each: 1, count: 0, sums: [0, 0] });
  }

  add(d, g) {
    this.sums[0] += d;
    this.sums[1] += g;
    this.count += 1;
    if (this.count < this.each) return;
    this.d.push(this.sums[0] / this.count);
    this.g.push(this.sums[1] / this.count);
    this.sums = [0, 0];
    this.count = 0;
    if (this.d.length < 2 * KEPT) return;
    const halve = (list) => Array.from({ length: KEPT }, (_, i) => (list[2 * i] + list[2 * i + 1]) / 2);
    this.d = halve(this.d);
    this.g = halve(this.g);
    this.each *= 2;
  }
}

/** The chart of both losses, with a line where each stands once D cannot tell. */
class Chart {
  constructor() {
    this.canvas = el("canvas", { class: "sx-chart", "aria-hidden": "true" });
  }

  draw(losses, loss) {
    const ratio = Math.min(2, devicePixelRatio || 1), { canvas } = this;
    const [width, height] = [canvas.clientWidth || 300, canvas.clientHeight || 110].map((x) => Math.round(x * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d"), style = getComputedStyle(canvas), known = [...losses.d, ...losses.g].filter(Number.isFinite);
    const low = loss === "minimax" ? Math.max(-6, Math.min(-1, ...known)) : 0, high = Math.min(6, Math.max(2, ...known)), left = 22 * ratio, right = width - 4 * ratio;
    const y = (value) => height - 6 * ratio - ((limit(value, low, high) - low) / (high - low)) * (height - 12 * ratio);
    const x = (i) => left + (i / Math.max(KEPT / 2, losses.d.length - 1)) * (right - left);
    context.clearRect(0, 0, width, height);
    context.font = `${11 * ratio}px ${style.fontFamily}`;
    context.fillStyle = context.strokeStyle = style.color;
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.lineWidth = ratio;
    for (let value = Math.ceil(low); value <= high; value += high - low > 4 ? 2 : 1) {
      context.globalAlpha = 0.18;
      stroke(context, [[left, y(value)], [right, y(value)]]);
      context.globalAlpha = 0.8;
      context.fillText(String(value).replace("-", "−"), left - 5 * ratio, y(value));
    }
    const equilibrium = { d: 2 * Math.LN2, g: loss === "minimax" ? -Math.LN2 : Math.LN2 }, fake = `rgb(${rgb(style, "--sx-fake")})`;
    for (const [who, colour, dash, line] of [["d", style.color, [5, 3], 1.6], ["g", fake, [], 1.8]]) {
      context.strokeStyle = colour;
      context.globalAlpha = 0.55;
      context.lineWidth = ratio;
      context.setLineDash([ratio, 3 * ratio]);
      stroke(context, [[left, y(equilibrium[who])], [right, y(equilibrium[who])]]);
      context.setLineDash(dash.map((length) => length * ratio));
      context.globalAlpha = 1;
      context.lineWidth = line * ratio;
      stroke(context, losses[who].map((value, i) => [x(i), y(value)]));
      context.setLineDash([]);
    }
  }
}

function stroke(context, places) {
  context.beginPath();
  places.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

// --- The sandbox ---

function select(text, choices, onpick) {
  const box = el("select", { class: "sx-select", onchange: () => onpick(box.value) });
  box.append(...choices.map(([value, shown]) => el("option", { value }, shown)));
  return { row: el("label", { class: "sx-field" }, el("span", {}, text), box), show: (value) => (box.value = value) };
}

/** A slider over a list of values; a value between two of them stands at the nearer one and is told as it is. */
function slider(text, values, say, onmove) {
  const box = el("input", { type: "range", min: 0, max: values.length - 1, step: 1, class: "sx-range", oninput: () => onmove(values[Number(box.value)]) });
  const shown = el("span", { class: "sx-value", "aria-hidden": "true" }); // aria-valuetext says it
  const row = el("label", { class: "sx-field" }, el("span", {}, text), box, shown);
  return { row, show(value) {
    const gaps = values.map((other) => (other === value ? 0 : Math.abs(other - value)));
    box.value = gaps.indexOf(Math.min(...gaps));
    shown.textContent = say(value);
    box.setAttribute("aria-valuetext", say(value));
  } };
}

const act = (text, onclick, attributes = {}) => button(text, onclick, { class: "sx-button", ...attributes });
const perRound = (n) => `${n} a round`;
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const DRAW_STEP = 0.09; // between two points of a stroke
const FRAME_BUDGET = 22; // milliseconds of training between two pictures

class Sandbox {
  /** settings: what to start from; space: the sandbox's name in the page's address, if it keeps its state there; changed: is told each change. */
  constructor(root, settings, { space = "", changed = () => {} } = {}) {
    Object.assign(this, { root, space, changed, playing: false, visible: true, speed: 200, arrows: true, probe: null, due: 0 });
    this.initial = begun(tidy({ ...DEFAULTS, ...settings }));
    this.settings = this.fromAddress();
    this.build();
    this.reset();
    root.addEventListener("keydown", (event) => event.stopPropagation()); // or Lab and the book's theme take the arrow keys
    if (space) addEventListener("hashchange", (this.onhash = () => this.set(this.fromAddress())));
    this.sizes = new ResizeObserver(() => this.redraw());
    this.sizes.observe(root);
    this.themes = new MutationObserver(() => this.redraw());
    for (const node of [document.documentElement, document.body]) this.themes.observe(node, { attributes: true, attributeFilter: ["data-theme", "theme", "data-jp-theme-light"] });
  }

  destroy() {
    this.pause();
    cancelAnimationFrame(this.frameNumber);
    removeEventListener("hashchange", this.onhash);
    this.sizes.disconnect();
    this.themes.disconnect();
  }

  fromAddress() {
    return begun(tidy({ ...this.initial, ...(this.space ? readAddress(this.space) : {}) }, this.initial));
  }

  // --- what is on the page ---
  build() {
    const pick = (key) => (value) => this.set({ [key]: value });
    const names = Object.entries(TARGETS).map(([key, { name }]) => [key, name]);
    this.controls = {
      target: select("Real points", names, pick("target")),
      loss: select("G’s loss", Object.entries(LOSSES), pick("loss")),
      learning_rate: slider("Learning rate", RATES, String, pick("learning_rate")),
      beta1: slider("Adam’s β₁", BETAS, String, pick("beta1")),
      d_updates: slider("D’s updates", UPDATES, perRound, pick("d_updates")),
      g_updates: slider("G’s updates", UPDATES, perRound, pick("g_updates")),
      width: slider("Width", WIDTHS, (n) => `${n} units`, pick("width")),
    };
    this.pace = slider("Speed", SPEEDS.map(([n]) => n), (n) => SPEEDS.find(([each]) => each === n)[1], (n) => {
      this.speed = n;
      this.pace.show(n);
    });
    this.pace.show(this.speed);
    this.seedBox = el("input", { type: "number", class: "sx-seed", min: 0, max: 2 ** 32 - 1, step: 1, inputmode: "numeric", onchange: () => this.set({ seed: this.seedBox.value === "" ? this.settings.seed : Number(this.seedBox.value) }) });
    const seed = el("div", { class: "sx-field" }, el("label", {}, el("span", {}, "Seed"), this.seedBox), act("Another", () => this.set({ seed: (this.settings.seed + 1) % 2 ** 32 }), { "aria-label": "Another seed" }));

    this.presets = PRESETS.map((preset) => act(preset.name, () => this.take(preset), { class: "sx-button sx-preset" }));
    this.says = el("p", { class: "sx-says" });
    this.playButton = act("Play", () => (this.playing ? this.pause() : this.play()), { class: "sx-button sx-play" });
    const arrowBox = el("input", { type: "checkbox", checked: true, onchange: () => {
      this.arrows = arrowBox.checked;
      this.redraw();
    } });

    this.plane = new Plane();
    this.chart = new Chart();
    this.stage = el("div", { class: "sx-stage", tabindex: 0, role: "application", "aria-roledescription": "plane of points" }, this.plane.canvas);
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("pointerdown", (event) => this.press(event));
    this.stage.addEventListener("pointermove", (event) => this.move(event));
    this.stage.addEventListener("pointerleave", () => !this.drawing && this.look(null));
    for (const name of ["pointerup", "pointercancel"]) this.stage.addEventListener(name, () => (this.drawing = false));
    this.hint = el("p", { class: "sx-hint" });
    this.drawn = el("div", { class: "sx-row sx-drawn" }, act("Clear the drawing", () => this.set({ points: [] })), act("A heart", () => this.set({ points: heart() })));
    const key = (kind, text) => el("span", { class: "sx-key" }, el("i", { class: `sx-mark sx-${kind}`, "aria-hidden": "true" }), text);
    const legend = el("div", { class: "sx-legend" }, key("real-point", "real"), key("fake-point", "generated"), key("line", "D = ½"),
      el("span", { class: "sx-key" }, "D says: generated", el("i", { class: "sx-scale", "aria-hidden": "true" }), "real"));

    const number = (text) => {
      const value = el("dd", {}, "0");
      return { value, node: el("div", {}, el("dt", {}, text), value) };
    };
    this.numbers = { rounds: number("Round"), covered: number("Modes covered"), near: number("Near a mode") };
    this.lossNames = { d: el("span", { class: "sx-value" }), g: el("span", { class: "sx-value" }) };
    const chartKey = el("div", { class: "sx-legend" }, key("d-line", "D’s loss"), this.lossNames.d, key("g-line", "G’s loss"), this.lossNames.g, key("even", "where D cannot tell"));
    this.live = el("p", { class: "sx-live", "aria-live": "polite" });

    const buttons = el("div", { class: "sx-row sx-buttons" }, this.playButton, act("One step", () => this.step()), act("Reset", () => {
      this.pause();
      this.reset();
      this.tell("Back at the start. ");
    }), ...(this.space ? [act("Copy link", () => this.copyLink())] : []));
    const about = el("details", { class: "sx-about" }, el("summary", {}, "What is played, and what counts as covered"),
      el("p", {}, `G turns a standard normal z of ${Z_DIM} numbers into a point; D turns a point into the logit of its being real. Both have two hidden layers with LeakyReLU, because its slope below zero lets a gradient through everywhere. A round is some updates of D and then some of G, each by Adam on a fresh batch of ${BATCH}.`),
      el("p", {}, `A mode is one Gaussian of the target. A generated point is near it within 3 standard deviations, the circle around it; the mode is covered, and its circle a full line, if at least a quarter of its fair share of the ${SHOWN} shown points is near.`));
    const picture = el("div", { class: "sx-picture" }, this.stage, legend, this.drawn, this.hint, this.live);
    const panel = el("div", { class: "sx-panel" }, buttons, this.pace.row,
      el("dl", { class: "sx-numbers" }, ...Object.values(this.numbers).map(({ node }) => node)),
      el("figure", { class: "sx-losses" }, this.chart.canvas, chartKey),
      el("div", { class: "sx-controls", role: "group", "aria-label": "Settings of the game" }, ...Object.values(this.controls).map(({ row }) => row), seed,
        el("label", { class: "sx-check" }, arrowBox, "arrows: where D’s gradient moves G’s points")));
    const tries = el("div", { class: "sx-tries", role: "group", "aria-label": "Try this" }, el("span", { class: "sx-try" }, "Try this"), ...this.presets);
    this.root.replaceChildren(el("div", { class: "sx", role: "group", "aria-label": "A GAN on points in the plane" }, tries, this.says, el("div", { class: "sx-main" }, picture, panel), about));
  }

  // --- settings ---
  /** Take changes of the settings from a control, the address or Python; some begin a new game. */
  set(changes, { fromPython = false } = {}) {
    const wanted = tidy({ ...this.settings, ...changes }, this.settings), next = this.settings.target === "own" ? wanted : begun(wanted);
    const keys = Object.keys(DEFAULTS).filter((key) => !equal(next[key], this.settings[key]));
    this.settings = next;
    if (keys.length && !fromPython) this.changed(Object.fromEntries(keys.map((key) => [key, next[key]])));
    if (keys.some((key) => RESTARTS.includes(key))) this.reset();
    else {
      this.game.settings = next;
      if (keys.includes("points")) this.drawReals();
    }
    if (keys.length && this.space) {
      clearTimeout(this.writing); // a slider gives many values, and browsers limit how often an address may change
      this.writing = setTimeout(() => history.replaceState(history.state, "", writeAddress(this.space, encode(next, this.initial))), 150);
    }
    this.show();
  }

  /** Begin a preset: its settings in place of all others, from the start. */
  take(preset) {
    this.set({ ...DEFAULTS, points: this.settings.points, ...preset.settings });
    this.reset();
    this.play();
  }

  chosen() {
    const same = ({ settings }) => Object.keys(DEFAULTS).every((key) => key === "points" || equal({ ...DEFAULTS, ...settings }[key], this.settings[key]));
    return PRESETS.findIndex(same);
  }

  async copyLink() {
    const address = writeAddress(this.space, encode(this.settings, this.initial));
    const link = `${address}${address.includes("#") ? "&" : "#"}at=${this.space}`;
    try {
      await navigator.clipboard.writeText(link);
      this.say("The link is copied: it opens these settings.");
    } catch { // without permission, or from a file in some browsers
      this.say("The page’s address holds these settings: copy it from there.");
    }
  }

  // --- time ---
  reset() {
    this.game = new Game(this.settings);
    this.losses = new Losses();
    this.due = 0;
    this.drawReals();
    this.show();
  }

  drawReals() {
    this.real = this.game.reals(REALS, new Random(this.settings.seed ^ 0x51ed270b));
    this.redraw();
  }

  canTrain() {
    if (this.settings.target !== "own" || this.settings.points.length) return true;
    this.say("Draw some points first: there is nothing to learn from.");
    return false;
  }

  round() {
    this.game.round();
    this.losses.add(this.game.dLoss, this.game.gLoss);
  }

  step() {
    this.pause();
    if (!this.canTrain()) return;
    this.round();
    this.redraw();
    this.tell();
  }

  play() {
    if (!this.canTrain()) return;
    this.playing = true;
    this.last = performance.now();
    this.told = this.last;
    this.playButton.textContent = "Pause";
    this.redraw();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.playButton.textContent = "Play";
    this.tell();
  }

  redraw() {
    this.frameNumber ??= requestAnimationFrame((now) => this.frame(now));
  }

  frame(now) {
    this.frameNumber = null;
    if (this.playing && this.visible) this.train(now);
    this.last = now;
    this.draw();
    if (this.playing && this.visible) this.redraw();
  }

  /** Play the rounds that are due by the speed, or as many as fit between two pictures. */
  train(now) {
    const elapsed = Math.min(0.1, Math.max(0, now - this.last) / 1000), end = performance.now() + FRAME_BUDGET;
    this.due = this.speed === Infinity ? Infinity : this.due + this.speed * elapsed;
    while (this.due >= 1 && performance.now() < end) {
      this.round();
      this.due -= 1;
    }
    this.due = Math.min(this.due, 2); // what could not be done in time is let go
    const { params } = this.game.generator;
    if (![this.game.dLoss, params[0], params.at(-1)].every((x) => Number.isFinite(x)) && this.game.rounds && this.settings.d_updates) {
      this.pause();
      this.say("The numbers have grown without bound. Reset, and try a smaller learning rate.");
    } else if (now - this.told > 6000) {
      this.told = now;
      this.tell();
    }
  }

  /** Show the sandbox again after it was out of sight. */
  wake(visible) {
    this.visible = visible;
    if (visible) this.redraw();
  }

  // --- what is seen and said ---
  show() {
    const { settings } = this, chosen = this.chosen();
    for (const [key, control] of Object.entries(this.controls)) control.show(settings[key]);
    if (document.activeElement !== this.seedBox) this.seedBox.value = settings.seed;
    this.presets.forEach((one, i) => one.setAttribute("aria-pressed", i === chosen));
    this.says.textContent = chosen < 0 ? "Settings of your own. Each change of a rate or a loss acts at once; another target, width or seed begins anew." : PRESETS[chosen].says;
    const isOwn = settings.target === "own";
    this.drawn.hidden = !isOwn;
    this.stage.classList.toggle("sx-draws", isOwn);
    const keys = "Arrow keys move the cross";
    this.stage.setAttribute("aria-label", isOwn ? `The plane. ${keys}, Enter puts real points there, Backspace takes the last away` : `The plane. ${keys}, and D’s opinion is told there`);
    this.hint.textContent = isOwn ? "Draw real points on the plane with the mouse or a finger; or move the cross with the arrow keys and press Enter." : "Point at the plane, or move a cross there with the arrow keys, to read what D thinks of a place.";
    this.redraw();
  }

  draw() {
    const { game, numbers } = this, generated = game.generated(), score = coverage(this.settings.target, generated), hasModes = score.of > 0;
    this.plane.draw(game, this.settings.target === "own" && !this.settings.points.length ? new Float64Array() : this.real, generated, this);
    this.chart.draw(this.losses, this.settings.loss);
    numbers.rounds.value.textContent = game.rounds.toLocaleString("en");
    numbers.covered.value.textContent = hasModes ? `${score.covered} of ${score.of}` : "–";
    numbers.near.value.textContent = hasModes ? `${Math.round(100 * score.near)} %` : "–";
    const mean = (list) => list.slice(-20).reduce((sum, x) => sum + x, 0) / Math.min(20, list.length);
    for (const who of ["d", "g"]) this.lossNames[who].textContent = this.losses[who].length ? signed(mean(this.losses[who])) : "";
    Object.assign(this.root.dataset, { ready: "", rounds: game.rounds });
  }

  say(text) {
    this.live.textContent = text;
  }

  /** Say in a sentence where the game stands. */
  tell(before = "") {
    const { game } = this, score = coverage(this.settings.target, game.generated());
    const modes = score.of ? ` G covers ${score.covered} of ${score.of} modes, with ${Math.round(100 * score.near)} % of its points near one.` : "";
    const losses = game.rounds ? ` D’s loss is ${signed(game.dLoss)}, G’s ${signed(game.gLoss)}.` : "";
    this.say(`${before}Round ${game.rounds.toLocaleString("en")}.${modes}${losses}`);
  }

  // --- the plane under hand and keys ---
  place(event) {
    const box = this.plane.canvas.getBoundingClientRect();
    return [REACH * ((2 * (event.clientX - box.left)) / box.width - 1), REACH * (1 - (2 * (event.clientY - box.top)) / box.height)].map((x) => limit(x, -REACH, REACH));
  }

  look(probe) {
    this.probe = probe;
    if (probe) this.hint.textContent = this.opinion(probe);
    else this.show();
    this.redraw();
  }

  opinion([x, y]) {
    const logit = this.game.discriminator.forward(Float64Array.of(x, y), 1)[0];
    return `At (${signed(x)}, ${signed(y)}) D says: real with probability ${sigmoid(logit).toFixed(2)}.`;
  }

  press(event) {
    if (event.button) return;
    if (this.settings.target === "own") {
      this.stage.setPointerCapture(event.pointerId);
      this.drawing = true;
      this.put([this.place(event)]);
    } else this.look(this.place(event));
  }

  move(event) {
    if (!this.drawing) {
      if (event.pointerType === "mouse") this.look(this.place(event));
      return;
    }
    const [x, y] = this.place(event), [lastX, lastY] = this.settings.points.at(-1) ?? [Infinity, Infinity];
    if (Math.hypot(x - lastX, y - lastY) >= DRAW_STEP) this.put([[x, y]]);
  }

  put(points) {
    if (this.settings.points.length >= MOST_POINTS) return this.say(`${MOST_POINTS} points are the most that a drawing may have.`);
    this.set({ points: [...this.settings.points, ...points] });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { probe, settings } = this, isOwn = settings.target === "own", step = event.shiftKey ? 0.5 : 0.1;
    if (event.key in DIRECTIONS) {
      const [x, y] = probe ?? [0, 0], [dx, dy] = DIRECTIONS[event.key];
      this.look([limit(x + step * dx, -REACH, REACH), limit(y + step * dy, -REACH, REACH)]);
      this.say(this.hint.textContent);
    } else if (isOwn && (event.key === "Enter" || event.key === " ")) this.put([probe ?? [0, 0]]);
    else if (isOwn && event.key === "Backspace") this.set({ points: settings.points.slice(0, -1) });
    else if (event.key === "Escape") this.look(null);
    else return;
    event.preventDefault();
  }
}

const signed = (x) => (Number.isFinite(x) ? (x < 0 ? "−" : "") + Math.abs(x).toFixed(2) : "–");

// --- Mounting: a static page, or a widget in a live notebook ---

let mounted = 0;

/** Bring a mount point of a page to life; it trains only while it can be seen. */
function mount(element, settings = JSON.parse(element.dataset.sandbox || "{}")) {
  mounted += 1;
  const space = `s${mounted}`, sandbox = new Sandbox(element, settings, { space });
  element.sandbox = sandbox; // for whoever wants to drive it from the console
  new IntersectionObserver((seen) => sandbox.wake(seen.at(-1).isIntersecting)).observe(element);
  if (entries().includes(`at=${space}`)) element.scrollIntoView({ block: "center" });
  return sandbox;
}

/** Show the widget in a notebook: its settings are the Python object's, both ways. */
function render({ model, el: host }) {
  const keys = Object.keys(DEFAULTS), read = () => Object.fromEntries(keys.map((key) => [key, model.get(key)]));
  const root = el("div", { class: "dcgan-sandbox" });
  host.append(root); // first, so that the plane has a size
  let isTelling = false; // a change of several settings arrives one by one, and half of it is no game to play
  const sandbox = new Sandbox(root, read(), {
    changed: (changes) => {
      isTelling = true;
      for (const [key, value] of Object.entries(changes)) model.set(key, structuredClone(value));
      isTelling = false;
      model.save_changes();
    },
  });
  root.sandbox = sandbox;
  const listen = () => isTelling || sandbox.set(read(), { fromPython: true });
  for (const key of keys) model.on(`change:${key}`, listen);
  const seen = new IntersectionObserver((entries) => sandbox.wake(entries.at(-1).isIntersecting));
  seen.observe(root);
  return () => {
    for (const key of keys) model.off(`change:${key}`, listen);
    seen.disconnect();
    sandbox.destroy();
  };
}

export default { render };
