// Runs the model on images that are chosen, dropped, pasted or photographed, and shows its predictions.
"use strict";

const find = (id) => document.getElementById(id);
const model = JSON.parse(find("model").textContent);
const SHOWN = 10; // rows of a table: a model may have thousands of classes
const THUMBNAIL = 320; // pixels of the longer side
const CHECK = 1e-3; // of a probability; what this page and Python differ by is far below

const say = (text, busy = false) => {
  find("status").textContent = text;
  find("status").classList.toggle("busy", busy);
};
const pause = () => new Promise((done) => setTimeout(done)); // so that the page is drawn and responds

// ---------------------------------------------------------------- the model

// What was packed into the page: gzip in base64.
const unpack = async (id) => {
  const packed = Uint8Array.from(atob(find(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  find(id).remove(); // its memory is free then
  return new Response(stream).arrayBuffer();
};

const load = async () => {
  const [wasm, glue, onnx] = [await unpack("wasm"), await unpack("glue"), await unpack("onnx")];
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([glue], { type: "text/javascript" })) };
  ort.env.wasm.numThreads = 1; // more need headers that a file on disk has not
  return ort.InferenceSession.create(onnx, { executionProviders: ["wasm"] });
};

const session = load();
let queue = session; // a session takes one image after the other

// (size, size, 3) RGB bytes → probabilities, one a class
const predict = (pixels) => {
  const result = queue.then(async () => {
    const images = new ort.Tensor("uint8", pixels, [1, model.size, model.size, 3]);
    const { probabilities } = await (await session).run({ images });
    return probabilities.data;
  });
  queue = result.catch(() => {});
  return result;
};

// ---------------------------------------------------------------- does this browser predict what Python does?

// Some browsers change the pixels that a page reads, against fingerprinting.
const check = async () => {
  const bytes = Uint8Array.from(atob(model.check.png), (c) => c.charCodeAt(0));
  const image = await decode(new Blob([bytes], { type: "image/png" }));
  const probabilities = await predict(square(image, model.size, model.mode));
  const difference = Math.max(...probabilities.map((p, i) => Math.abs(p - model.check.probabilities[i])));
  document.body.dataset.difference = difference;
  say("");
  if (difference <= CHECK) return;
  find("status").after(make("p", { className: "card bad", textContent: "The prediction for a test image is wrong: "
    + "this browser changes the pixels that pages read (protection against fingerprinting?). Allow this page to read "
    + "canvases, or try another browser; until then predictions may be wrong." }));
};

const ready = session.then(check);
ready.catch((error) => {
  find("form").hidden = true;
  say(`The model does not run in this browser: ${error.message}. An up-to-date Chrome, Edge, Firefox or Safari runs it.`);
});

// ---------------------------------------------------------------- the results

const percent = (p) => `${(100 * p).toFixed(1)}\u00a0%`;

// Everything that comes from files or the model goes in as text: a name can hold HTML.
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const predictionOf = (probabilities) => {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const known = probabilities[best] >= find("threshold").value / 100;
  return { name: known ? model.classes[best] : "unknown", probability: probabilities[best] };
};

const seenCanvas = (pixels) => {
  const image = new ImageData(model.size, model.size);
  for (let i = 0; i < model.size ** 2; i++) image.data.set([...pixels.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  const canvas = make("canvas", { width: model.size, height: model.size, className: "pixels" });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
};

const thumbnail = (image) => {
  const scale = Math.min(1, THUMBNAIL / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(scale * side)));
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return canvas;
};

const figure = (canvas, text, label) => {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return make("figure", {}, canvas, make("figcaption", { textContent: text }));
};

const bar = (probability) => {
  const [svg, rect] = ["svg", "rect"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("class", "bar");
  const values = { width: `${(100 * probability).toFixed(1)}%`, height: "100%", rx: 4, class: "fill" };
  for (const [name, value] of Object.entries(values)) rect.setAttribute(name, value);
  svg.append(rect);
  return svg;
};

const row = (name, probability, best) => make("tr", { className: best ? "best" : "" },
  make("th", { scope: "row", textContent: name }), make("td", { ariaHidden: "true" }, bar(probability)),
  make("td", { textContent: percent(probability) }));

const table = (name, probabilities, ranked) => make("table", {},
  make("caption", { className: "visually-hidden", textContent: `Probabilities for ${name}` }),
  make("tbody", {}, ...ranked.slice(0, SHOWN).map((i, at) => row(model.classes[i], probabilities[i], at === 0))));

const showPrediction = (card) => {
  const { name, probability } = predictionOf(card.probabilities);
  card.querySelector(".prediction p").replaceChildren(make("strong", { textContent: name }),
    make("span", { className: "probability", textContent: percent(probability) }));
};

const resultCard = (name, image, pixels, probabilities) => {
  const ranked = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const more = ranked.slice(SHOWN);
  const card = make("li", { className: "card", probabilities, pixels },
    make("div", { className: "seen" },
      figure(thumbnail(image), "Image", name),
      figure(seenCanvas(pixels), `What the model sees, ${model.size} × ${model.size}`, `${name} as the model sees it`)),
    make("div", { className: "prediction" }, make("h2", { className: "file", textContent: name, title: name }), make("p")),
    table(name, probabilities, ranked));
  if (more.length) {
    const text = `${more.length} more classes, each at most ${percent(probabilities[more[0]])}`;
    card.append(make("p", { className: "quiet more", textContent: text }));
  }
  showPrediction(card);
  return card;
};

const errorCard = (name, text) => make("li", { className: "card bad" },
  make("h2", { className: "file", textContent: name }), make("p", { textContent: `It ${text}.` }));

// ---------------------------------------------------------------- from a file to its card

const classify = async (name, decoded) => {
  let image;
  try {
    image = await decoded;
    const pixels = square(image, model.size, model.mode);
    return resultCard(name, image, pixels, await predict(pixels));
  } catch (error) {
    return errorCard(name, error instanceof RangeError ? "is too large for this browser's memory" : error.message);
  } finally {
    image?.close();
  }
};

const classifyAll = async (files) => {
  const list = make("ul", { className: "cards" }), failed = () => list.querySelectorAll(".bad").length;
  find("results").prepend(list);
  for (const [done, file] of files.entries()) {
    say(files.length > 1 ? `Classifying ${files.length} images, ${done} done …` : "Classifying …", true);
    await pause();
    list.append(await classify(file.name || "pasted image", decode(file)));
  }
  const good = [...list.children].filter((card) => card.probabilities);
  const parts = good.slice(0, 3).map((card) => {
    const { name, probability } = predictionOf(card.probabilities);
    return `${card.querySelector(".file").textContent}: ${name}, ${percent(probability)}`;
  });
  if (good.length > 3) parts.push(`and ${good.length - 3} more`);
  if (failed()) parts.push(`no prediction for ${failed()} ${failed() === 1 ? "image" : "images"}`);
  say(`${parts.join("; ")}.`);
};

let work = ready;
const take = (files) => {
  work = work.then(() => classifyAll(files)); // one choice after the other
};
onImages(find("form"), [find("images"), find("capture")], say, take);

find("threshold").addEventListener("input", () => {
  find("least").textContent = `${find("threshold").value}\u00a0%`;
  for (const card of document.querySelectorAll(".card")) if (card.probabilities) showPrediction(card);
});

find("clear").addEventListener("click", () => {
  find("results").replaceChildren();
  say("Cleared.");
  find("images").focus();
});

// ---------------------------------------------------------------- the camera

const video = find("video");
let photos = 0;

// What is before the camera, said twice a second while the dialog is open.
const live = async () => {
  while (find("dialog").open) {
    if (video.videoWidth) {
      const image = await createImageBitmap(video);
      const { name, probability } = predictionOf(await predict(square(image, model.size, model.mode)));
      image.close();
      find("live").textContent = `${name} ${percent(probability)}`;
    }
    await new Promise((done) => setTimeout(done, 500));
  }
};

find("camera").addEventListener("click", async () => {
  if (!navigator.mediaDevices) return find("capture").click(); // the camera app of a phone
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const reasons = { NotAllowedError: "the browser does not allow it", NotFoundError: "none was found" };
    return say(`No camera: ${reasons[error.name] ?? error.message}. Choose an image instead.`);
  }
  find("dialog").showModal();
  live().catch((error) => say(`The camera stopped: ${error.message}`));
});

find("shoot").addEventListener("click", async () => {
  if (!video.videoWidth) return; // not started yet
  const photo = await new Promise((done) => {
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob(done, "image/png");
  });
  take([new File([photo], `photo ${++photos}.png`)]);
  find("dialog").close();
});
find("close").addEventListener("click", () => find("dialog").close());
find("dialog").addEventListener("close", () => {
  for (const track of video.srcObject.getTracks()) track.stop();
  video.srcObject = null;
  find("live").textContent = "\u00a0";
});

