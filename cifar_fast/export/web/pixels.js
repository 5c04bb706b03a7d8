// An image as the model sees it: what read_image makes of it with Pillow, rounding included.
"use strict";

const MAX_PIXELS = 64e6;
const PRECISION = 22; // bits after the point of Pillow's weights
const STRIP = 256; // rows or columns that are read at a time: 64 megapixels fit into no canvas of a phone

// Python's round: halves go to the even neighbour.
const round = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

// The image in a file, upright. Colour profiles are not applied, as Pillow does not.
const decode = async (file) => {
  if (!file.size) throw new Error("is empty (0 bytes)");
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  if (head[0] === 0x89 && head[1] === 0x50 && head[24] === 16) {
    throw new Error("has 16 bits a channel, of which a browser keeps 8: save it with 8, or use cifar_fast predict");
  }
  const webp = String.fromCharCode(...head.subarray(8, 12)) === "WEBP";
  const turn = webp ? webpOrientation(new DataView(await file.arrayBuffer())) : 1;
  const options = { // Chromium turns no WebP, and its decoder premultiplies coarsely
    imageOrientation: webp ? "none" : "from-image", premultiplyAlpha: webp ? "none" : "default",
    colorSpaceConversion: "none",
  };
  try {
    return turned(await createImageBitmap(file, options), turn);
  } catch {
    throw new Error("cannot be read by this browser: is it an image? PNG, JPEG and WebP work everywhere");
  }
};

// The EXIF orientation of a WebP file, 1 where it has none.
const webpOrientation = (view) => {
  const text = (at, length) => String.fromCharCode(...new Uint8Array(view.buffer, at, length));
  try {
    let at = 12;
    while (text(at, 4) !== "EXIF") at += 8 + 2 * Math.ceil(view.getUint32(at + 4, true) / 2);
    const tiff = at + 8 + (text(at + 8, 4) === "Exif" ? 6 : 0), little = text(tiff, 2) === "II";
    const directory = tiff + view.getUint32(tiff + 4, little), entries = view.getUint16(directory, little);
    for (let entry = directory + 2; entry < directory + 2 + 12 * entries; entry += 12) {
      if (view.getUint16(entry, little) === 0x112) return view.getUint16(entry + 8, little);
    }
  } catch {} // past the end: no EXIF, or a broken one
  return 1;
};

// A bitmap turned and mirrored by an EXIF orientation.
const turned = (image, orientation) => {
  const { width: w, height: h } = image;
  const matrix = [, , [-1, 0, 0, 1, w, 0], [-1, 0, 0, -1, w, h], [1, 0, 0, -1, 0, h], [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, h, 0], [0, -1, -1, 0, h, w], [0, -1, 1, 0, 0, w]][orientation];
  if (!matrix) return image;
  const canvas = orientation > 4 ? new OffscreenCanvas(h, w) : new OffscreenCanvas(w, h);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.setTransform(...matrix);
  context.drawImage(image, 0, 0);
  image.close();
  return canvas.transferToImageBitmap();
};

// RGBA bytes of a rectangle of an image, in strips across or down: onStrip(left, top, columns, rows, bytes).
const strips = (image, [left, top, width, height], down, onStrip) => {
  const columns = down ? Math.min(STRIP, width) : width, rows = down ? height : Math.min(STRIP, height);
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true }); // not on the GPU, which may round otherwise
  context.globalCompositeOperation = "copy";
  context.imageSmoothingEnabled = false;
  for (let x = 0, y = 0; x < width && y < height; down ? (x += STRIP) : (y += STRIP)) {
    const w = Math.min(columns, width - x), h = Math.min(rows, height - y);
    context.drawImage(image, left + x, top + y, w, h, 0, 0, w, h);
    onStrip(x, y, w, h, context.getImageData(0, 0, w, h).data);
  }
};

// ---------------------------------------------------------------- Pillow's Image.resize(…, BICUBIC)

const bicubic = (x) => {
  const a = -0.5, d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
};

// For each of `to` pixels the first of the `from` pixels that it is made of, and their weights, as integers.
const kernels = (from, to) => {
  const scale = from / to, stretch = Math.max(scale, 1), support = 2 * stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const raw = Array.from({ length: last - first }, (_, k) => bicubic((k + first - centre + 0.5) * (1 / stretch)));
    const sum = raw.reduce((a, b) => a + b, 0);
    const fixed = raw.map((w) => Math.trunc((w / sum) * 2 ** PRECISION + (w / sum < 0 ? -0.5 : 0.5)));
    return { first, weights: Int32Array.from(fixed) };
  });
};

// One value: `start` is the index of the first pixel's, `step` the distance to the next pixel's.
const weighted = (bytes, weights, start, step) => {
  let sum = 1 << (PRECISION - 1);
  for (let k = 0, at = start; k < weights.length; k++, at += step) sum += bytes[at] * weights[k];
  sum >>= PRECISION;
  return sum < 0 ? 0 : sum > 255 ? 255 : sum;
};

// RGBA bytes of `rows` rows, resized along their width.
const resizeRows = (bytes, width, rows, columns) => {
  const to = columns.length, out = new Uint8Array(4 * to * rows);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < to; x++) {
      const start = 4 * (y * width + columns[x].first), at = 4 * (y * to + x);
      for (let c = 0; c < 4; c++) out[at + c] = weighted(bytes, columns[x].weights, start + c, 4);
    }
  }
  return out;
};

const resizeColumns = (bytes, width, rows) => {
  const line = 4 * width, out = new Uint8Array(line * rows.length);
  rows.forEach(({ first, weights }, y) => {
    for (let x = 0; x < line; x++) out[y * line + x] = weighted(bytes, weights, first * line + x, line);
  });
  return out;
};

// In place. A canvas holds premultiplied bytes too: what it rounded when they were read comes back exactly.
const premultiply = (bytes) => {
  for (let i = 0; i < bytes.length; i += 4) {
    const alpha = bytes[i + 3];
    if (alpha < 255) for (let c = 0; c < 3; c++) bytes[i + c] = Math.round((bytes[i + c] * alpha) / 255);
  }
};

const unpremultiply = (bytes) => {
  for (let i = 0; i < bytes.length; i += 4) {
    const alpha = bytes[i + 3];
    if (alpha === 0 || alpha === 255) continue;
    for (let c = 0; c < 3; c++) bytes[i + c] = Math.min(255, Math.floor((255 * bytes[i + c]) / alpha));
  }
};

// The rectangle of an image as RGBA bytes of w × h pixels.
const resized = (image, box, [w, h]) => {
  const [, , width, height] = box;
  const same = width === w && height === h;
  const across = kernels(width, w), down = kernels(height, h);
  const columnsFirst = height > h && height - h > 2 * (width - w); // as Pillow does since version 13
  const bytes = new Uint8Array(columnsFirst ? 4 * width * h : 4 * w * height);
  strips(image, box, columnsFirst, (left, top, columns, rows, strip) => {
    if (!same) premultiply(strip);
    if (!columnsFirst) return bytes.set(width === w ? strip : resizeRows(strip, width, rows, across), 4 * top * w);
    const part = resizeColumns(strip, columns, down);
    for (let y = 0; y < h; y++) bytes.set(part.subarray(4 * y * columns, 4 * (y + 1) * columns), 4 * (y * width + left));
  });
  if (same) return bytes;
  const second = columnsFirst ? width !== w : height !== h;
  const all = !second ? bytes : columnsFirst ? resizeRows(bytes, width, h, across) : resizeColumns(bytes, w, down);
  unpremultiply(all);
  return all;
};

// ---------------------------------------------------------------- read_image

// RGB bytes (size, size, 3) of a decoded image; transparency becomes white, the bars of `pad` are black.
const square = (image, size, mode) => {
  const { width, height } = image;
  if (width * height > MAX_PIXELS) throw new Error(`has ${width} × ${height} pixels, more than the 64 million allowed`);
  const side = Math.min(width, height), most = Math.max(width, height);
  const [left, top] = [width, height].map((s) => Math.floor((s - side) / 2));
  const box = mode === "crop" ? [left, top, side, side] : [0, 0, width, height];
  const to = [width, height].map((s) => (mode === "pad" ? Math.max(1, round((s * size) / most)) : size));
  const bytes = resized(image, box, to);
  const [x0, y0] = to.map((s) => round((size - s) / 2));
  const out = new Uint8Array(size * size * 3);
  for (let y = 0; y < to[1]; y++) {
    for (let x = 0; x < to[0]; x++) {
      const from = 4 * (y * to[0] + x), alpha = bytes[from + 3];
      for (let c = 0; c < 3; c++) {
        const sum = bytes[from + c] * alpha + 255 * (255 - alpha) + 128;
        out[3 * ((y0 + y) * size + x0 + x) + c] = (128 * sum + ((128 * sum) >> 8)) >> 15; // Pillow's alpha_composite
      }
    }
  }
  return out;
};
