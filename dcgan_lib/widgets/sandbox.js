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
  gaussian: { name: "one Gaussian", sd: 0.3, modes: [[0.8, 0.6]] },
  own: { name: "draw your own", sd: 0.06, modes: [] },
};

/** Return n real points of a target; `own` are the points that a reader has drawn, for the target of that name. */
function samplePoints(target, n, random, own = []) {
  const { sd, modes } = TARGETS[target], points = new Float64Array(2 * n), dots = target === "own" ? own : modes;
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
    for (const { inputs, weight, bias } of this.layers) {
      const sd = Math.sqrt(2 / (1 + SLOPE * SLOPE) / inputs); // He's rule: the size of activations stays about the same
      for (let k = weight; k < bias; k++) this.params[k] = sd * random.normal();
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
      const out = this.outs[l + 1], from = this.outs[l], dOut = this.deltas[l + 1], dFrom = this.deltas[l];
      dFrom.fill(0, 0, n * inputs);
      for (let b = 0; b < n; b++) {
        const h = b * inputs;
        for (let o = 0; o < outputs; o++) {
          const at = b * outputs + o, d = l < last && out[at] < 0 ? SLOPE * dOut[at] : dOut[at], w = weight + o * inputs;
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
  /** settings: target, own, learning_rate, beta1, loss, d_updates, g_updates, width, seed; all but width and seed may change while it runs. */
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
    return samplePoints(this.settings.target, n, random, this.settings.own);
  }

  round() {
    const { d_updates, g_updates } = this.settings;
    for (let k = 0; k < d_updates; k++) this.dLoss = this.updateD(this.reals(BATCH), this.latents(BATCH));
    for (let k = 0; k < g_updates; k++) this.gLoss = this.updateG(this.latents(BATCH));
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

/** Return how many Gaussians of a target the points cover, and which share of the points lies near one.
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
  return { covered: counts.filter((count) => count >= needed).length, of: modes.length, near: near / n };
}

export default { render };
