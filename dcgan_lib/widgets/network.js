// The networks of a page, for the widgets that show one: what runs them, and where their weights come from.
// A generator turns z into pixels, a discriminator pixels into its opinion; both are rows of the same few layers, with batch
// norm already folded into them by export.py. Sections: layers, generator, discriminator and its opinion, where models come from.

// --- Layers: projections and convolutions of both kinds ---

const HALF = { table: null }; // float16 to float32, all 65,536 of them, made when first needed
function halfTable() {
  if (HALF.table) return HALF.table;
  HALF.table = Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return exponent ? sign * (1 + fraction / 1024) * 2 ** (exponent - 15) : sign * fraction * 2 ** -24;
  });
  return HALF.table;
}

/** What both networks are made of. Maps lie pixel by pixel, channels innermost. */
class Network {
  constructor(about, bytes) {
    this.about = about;
    this.bytes = bytes.byteOffset % 4 ? bytes.slice() : bytes;
    this.dense = about.layers.filter((layer) => layer.kind === "linear").map((layer) => this.readLinear(layer));
    this.convs = about.layers.filter((layer) => layer.kind !== "linear").map((layer) => this.readConv(layer));
    const { inputs, height: h, width: w } = this.convs[0];
    this.maps = [new Float32Array(inputs * h * w)]; // what goes into each convolution
    for (const conv of this.convs) this.maps.push(new Float32Array(conv.outHeight * conv.outWidth * conv.padded));
    const most = Math.max(...this.convs.map((conv) => (conv.inputs + 1) * conv.height * conv.width));
    this.start = new Int32Array(Math.max(...this.convs.map((conv) => conv.height * conv.width)) + 1);
    this.index = new Int32Array(most);
    this.value = new Float32Array(most);
  }

  floats(offset, length) {
    return new Float32Array(this.bytes.buffer, this.bytes.byteOffset + offset, length);
  }

  /** Return a function from the position of a weight to its value; each run of weights shares one int8 scale. */
  reader(layer, size, run) {
    const from = this.bytes.byteOffset + layer.weight;
    if (layer.type === "int8") {
      const stored = new Int8Array(this.bytes.buffer, from, size), scale = this.floats(layer.scale, size / run);
      return (at) => stored[at] * scale[(at / run) | 0];
    }
    const stored = new Uint16Array(this.bytes.buffer, from, size), table = halfTable();
    return (at) => table[stored[at]];
  }

  readLinear(layer) {
    const columns = layer.inputs + this.about.num_classes, [channels, height, width] = layer.grid ?? [layer.outputs, 1, 1];
    const read = this.reader(layer, columns * layer.outputs, columns), bias = this.floats(layer.bias, layer.outputs);
    const cells = height * width, weight = new Float32Array(columns * layer.outputs), moved = new Float32Array(layer.outputs);
    for (let from = 0; from < layer.outputs; from++) {
      const row = (from % cells) * channels + Math.floor(from / cells); // channels innermost
      moved[row] = bias[from];
      for (let i = 0; i < columns; i++) weight[row * columns + i] = read(from * columns + i);
    }
    return { weight, bias: moved, columns, inputs: layer.inputs, outputs: layer.outputs, slope: layer.slope };
  }

  /** Read a convolution into the order in which it is used: blocks of outputs, then taps, then inputs. */
  readConv(layer) {
    const { inputs, outputs, kernel: k, stride } = layer, [height, width] = layer.in_size, [outHeight, outWidth] = layer.out_size;
    const rows = inputs + this.about.num_classes, block = outputs > 4 ? 8 : 4, padded = Math.ceil(outputs / block) * block;
    const read = this.reader(layer, rows * outputs * k * k, k * k), weight = new Float32Array(rows * padded * k * k);
    for (let i = 0, at = 0; i < rows; i++)
      for (let o = 0; o < outputs; o++)
        for (let tap = 0; tap < k * k; tap++, at++)
          weight[((Math.floor(o / block) * k * k + tap) * rows + i) * block + (o % block)] = read(at);
    const bias = new Float32Array(padded), pad = (k - 1) >> 1, isTransposed = layer.kind === "transposed";
    bias.set(this.floats(layer.bias, outputs));
    // Output y meets input iy at the kernel's row y + pad - stride · iy if transposed, at iy + pad - stride · y if not.
    const outStep = isTransposed ? 1 : -stride, inStep = isTransposed ? -stride : 1;
    const lowest = isTransposed ? (y) => Math.ceil((y + pad - k + 1) / stride) : (y) => stride * y - pad;
    const highest = isTransposed ? (y) => Math.floor((y + pad) / stride) : (y) => stride * y - pad + k - 1;
    const reached = (size, limit) => // first and last input of each output position
      Int32Array.from({ length: 2 * size }, (_, i) => (i & 1 ? Math.min(limit - 1, highest(i >> 1)) : Math.max(0, lowest(i >> 1))));
    const rowRange = reached(outHeight, height), columnRange = reached(outWidth, width);
    return { weight, bias, inputs, outputs, rows, padded, block, k, pad, outStep, inStep, height, width, outHeight, outWidth,
      rowRange, columnRange, slope: layer.slope };
  }

  /** Run one convolution on its map; the next map is what comes out. */
  convolve(i, label) {
    const conv = this.convs[i];
    this.list(conv, this.maps[i], i ? this.convs[i - 1].padded : conv.inputs, label);
    (conv.block === 8 ? gather8 : gather4)(conv, this, this.maps[i + 1]);
  }

  project({ weight, bias, columns, inputs, outputs, slope }, z, label, out) {
    for (let o = 0, at = 0; o < outputs; o++, at += columns) {
      let sum = bias[o];
      for (let i = 0; i < inputs; i++) sum += weight[at + i] * z[i];
      if (columns > inputs) sum += weight[at + inputs + label];
      out[o] = sum > 0 ? sum : slope * sum;
    }
  }

  /** List each pixel's inputs but zeros: ReLU leaves about half of them at zero, and zeros cost nothing then. */
  list({ inputs, rows, block, height, width }, map, step, label) {
    const { start, index, value } = this;
    let n = 0;
    for (let p = 0; p < height * width; p++) {
      start[p] = n;
      for (let c = 0, i = p * step; c < inputs; c++, i++) {
        if (map[i] !== 0) {
          index[n] = c * block;
          value[n++] = map[i];
        }
      }
      if (rows > inputs) { // the label, one-hot at every pixel
        index[n] = (inputs + label) * block;
        value[n++] = 1;
      }
    }
    start[height * width] = n;
  }
}

// Each output pixel gathers from the inputs that reach it; eight (or four) sums stay in registers. Below zero they are scaled by
// a slope: 0 is ReLU, 1 leaves them as they are.
// The two are written out because a loop over the sums would take three times as long.
function gather8(conv, { start, index, value }, out) {
  const { weight: w, bias, rows, padded, k, pad, outStep, inStep, width, outHeight, outWidth, rowRange, columnRange, slope } = conv;
  for (let first = 0; first < padded; first += 8) {
    const block = (first / 8) * k * k;
    for (let y = 0, o = first; y < outHeight; y++) {
      for (let x = 0; x < outWidth; x++, o += padded) {
        let a = bias[first], b = bias[first + 1], c = bias[first + 2], d = bias[first + 3];
        let e = bias[first + 4], f = bias[first + 5], g = bias[first + 6], h = bias[first + 7];
        for (let iy = rowRange[2 * y]; iy <= rowRange[2 * y + 1]; iy++) {
          for (let ix = columnRange[2 * x]; ix <= columnRange[2 * x + 1]; ix++) {
            const tap = (block + (y * outStep + pad + iy * inStep) * k + x * outStep + pad + ix * inStep) * rows * 8;
            const end = start[iy * width + ix + 1];
            for (let n = start[iy * width + ix]; n < end; n++) {
              const v = value[n], at = tap + index[n];
              a += v * w[at]; b += v * w[at + 1]; c += v * w[at + 2]; d += v * w[at + 3];
              e += v * w[at + 4]; f += v * w[at + 5]; g += v * w[at + 6]; h += v * w[at + 7];
            }
          }
        }
        out[o] = a > 0 ? a : slope * a; out[o + 1] = b > 0 ? b : slope * b; out[o + 2] = c > 0 ? c : slope * c; out[o + 3] = d > 0 ? d : slope * d;
        out[o + 4] = e > 0 ? e : slope * e; out[o + 5] = f > 0 ? f : slope * f; out[o + 6] = g > 0 ? g : slope * g; out[o + 7] = h > 0 ? h : slope * h;
      }
    }
  }
}

function gather4(conv, { start, index, value }, out) {
  const { weight: w, bias, rows, padded, k, pad, outStep, inStep, width, outHeight, outWidth, rowRange, columnRange, slope } = conv;
  for (let y = 0, o = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++, o += padded) {
      let a = bias[0], b = bias[1], c = bias[2], d = bias[3];
      for (let iy = rowRange[2 * y]; iy <= rowRange[2 * y + 1]; iy++) {
        for (let ix = columnRange[2 * x]; ix <= columnRange[2 * x + 1]; ix++) {
          const tap = ((y * outStep + pad + iy * inStep) * k + x * outStep + pad + ix * inStep) * rows * 4;
          const end = start[iy * width + ix + 1];
          for (let n = start[iy * width + ix]; n < end; n++) {
            const v = value[n], at = tap + index[n];
            a += v * w[at]; b += v * w[at + 1]; c += v * w[at + 2]; d += v * w[at + 3];
          }
        }
      }
      out[o] = a > 0 ? a : slope * a; out[o + 1] = b > 0 ? b : slope * b; out[o + 2] = c > 0 ? c : slope * c; out[o + 3] = d > 0 ? d : slope * d;
    }
  }
}

// --- Generator ---

/** Latent vectors in, pixels out. */
class Generator extends Network {
  constructor(about, bytes) {
    super(about, bytes);
    const [height, width] = about.image_size;
    this.pixels = new Uint8ClampedArray(4 * height * width).fill(255);
  }

  /** Return the pixels (RGBA) of a latent vector; cut = {layer, off} silences maps of one layer. */
  run(z, label = 0, cut = null) {
    let h = z;
    this.dense.forEach((layer, i) => {
      const out = i === this.dense.length - 1 ? this.maps[0] : new Float32Array(layer.outputs);
      this.project(layer, h, label, out);
      h = out;
    });
    this.convs.forEach((_, i) => {
      if (cut && cut.layer === i) this.silence(this.maps[i], cut.off);
      this.convolve(i, label);
    });
    return this.paint();
  }

  channels(layer) { // how many values a pixel of a layer's maps takes
    return layer ? this.convs[layer - 1].padded : this.convs[0].inputs;
  }

  silence(map, off) {
    const step = this.channels(this.maps.indexOf(map));
    for (const channel of off) for (let i = channel; i < map.length; i += step) map[i] = 0;
  }

  paint() {
    const last = this.convs.at(-1), out = this.maps.at(-1), { pixels } = this;
    const level = this.about.output === "tanh" ? (x) => (Math.tanh(x) + 1) * 127.5 : (x) => 255 / (1 + Math.exp(-x));
    const second = last.outputs > 1 ? 1 : 0, third = last.outputs > 2 ? 2 : 0;
    for (let p = 0, i = 0; i < pixels.length; p += last.padded, i += 4) {
      pixels[i] = level(out[p]);
      pixels[i + 1] = second ? level(out[p + second]) : pixels[i];
      pixels[i + 2] = third ? level(out[p + third]) : pixels[i];
    }
    return pixels;
  }
}

// --- Discriminator ---

/** Pixels in, its opinion out. */
class Discriminator extends Network {
  /** Return the logit of a picture (RGBA, or levels 0 to 255 of one channel after another at each pixel); above 0 is "real". */
  logit(pixels, label = 0) {
    const { about: { image_size: [height, width], num_channels: channels, output }, convs, maps } = this;
    const step = pixels.length / (height * width), [low, scale] = output === "tanh" ? [-1, 2 / 255] : [0, 1 / 255];
    for (let p = 0; p < height * width; p++)
      for (let c = 0; c < channels; c++) maps[0][p * channels + c] = low + scale * pixels[p * step + c];
    convs.forEach((_, i) => this.convolve(i, label));
    const last = convs.at(-1), cells = last.outHeight * last.outWidth;
    let h = new Float32Array(cells * last.outputs); // flattened, without the channels that only fill a block
    for (let p = 0; p < cells; p++) h.set(maps.at(-1).subarray(p * last.padded, p * last.padded + last.outputs), p * last.outputs);
    for (const layer of this.dense) {
      const out = new Float32Array(layer.outputs);
      this.project(layer, h, label, out);
      h = out;
    }
    return h[0];
  }

  /** Return the probability that a picture is real, as the discriminator sees it. */
  probability(pixels, label = 0) {
    return 1 / (1 + Math.exp(-this.logit(pixels, label)));
  }
}

/** Say a probability as a reader would: never 0 or 1. */
const inWords = (p) => (p < 0.005 ? "less than 0.01" : p > 0.995 ? "more than 0.99" : p.toFixed(2));
const opinionWords = (p) => `D: ${inWords(p)} real`;

/** Return a bar from generated to real that shows an opinion. */
function opinionMeter() {
  const fill = el("span", { class: "dx-fill" }), words = el("strong", { class: "dx-verdict" }, "D: …"), verdict = el("span", { class: "dx-leans" });
  const bar = el("div", { class: "dx-meter", role: "meter", "aria-label": "D’s opinion: the probability that the picture is real", "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": 0 }, fill);
  const element = el("div", { class: "dx-opinion" }, words, el("span", { class: "dx-end" }, "generated"), bar, el("span", { class: "dx-end" }, "real"), verdict);
  return { element, show(p) {
    fill.style.width = `${100 * p}%`;
    element.dataset.leans = p < 0.5 ? "generated" : "real";
    words.textContent = opinionWords(p);
    verdict.textContent = p < 0.5 ? "taken for generated" : "taken for real";
    bar.setAttribute("aria-valuenow", p.toFixed(4));
    bar.setAttribute("aria-valuetext", `${inWords(p)}, ${verdict.textContent}`);
  } };
}

// --- Where models come from: a script beside the page, or the kernel ---

const loading = new Map(); // one promise a model, shared by every widget of a page's script
const networkOf = (about, bytes) => new (about.network === "discriminator" ? Discriminator : Generator)(about, bytes);

function fromBase64(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Load a network's script, once; a script works where fetch does not: from file://. */
function loadFromSite(model, network = "generator") {
  const name = network === "generator" ? model : `${model}-${network}`;
  if (!loading.has(name)) {
    loading.set(name, new Promise((resolve, reject) => {
      const found = () => window.dcganModels?.[name];
      const finish = () => found() ? resolve(networkOf(found(), fromBase64(found().weights))) : reject(new Error("empty"));
      if (found()) return finish();
      const root = document.documentElement.dataset.content_root || "./";
      const script = el("script", { src: `${root}_static/models/${encodeURIComponent(name)}.js`, onload: finish });
      script.onerror = () => reject(new Error(`The weights of “${name}” could not be loaded.`));
      document.head.append(script);
    }));
    loading.get(name).catch(() => loading.delete(name));
  }
  return loading.get(name);
}

/** Ask the kernel for a network's weights. */
function loadFromKernel(kernel, name, network = "generator") {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("No kernel answers: run this cell to bring it to life.")), 20000);
    const answer = (message, buffers) => {
      if (message.model !== name || (message.network ?? "generator") !== network || !["weights", "no weights"].includes(message.type)) return;
      clearTimeout(timer);
      kernel.off("msg:custom", answer);
      if (message.type === "no weights") return reject(new Error(message.reason));
      const view = buffers[0];
      resolve(networkOf(message.about, new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength).slice()));
    };
    kernel.on("msg:custom", answer);
    kernel.send({ type: "need weights", model: name, network });
  });
}

