/** Classifies an uploaded picture with the demo model. `?server=URL` asks another server, which has to allow this origin. */
import { connect, Tensor } from "@kingpole/client";

const parameters = new URL(document.URL).searchParams;
const SERVER = parameters.get("server") ?? new URL(document.URL).origin;
const MODEL = parameters.get("model") ?? "efficientnet-lite0";
const GUESSES = 5;
// The model's pictures were made by shrinking the shorter side to 256 and cutting out the middle 224.
const SHARE_OF_SHORTER_SIDE = 224 / 256;

const client = connect(SERVER, { timeoutMs: 10_000 });
const element = (id) => document.getElementById(id);

/** Draws the middle of a picture, and returns it as raw RGB, UINT8 of shape (1, height, width, 3). */
function pixelsOf(picture, [, height, width]) {
  const canvas = element("seen");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const side = Math.min(picture.width, picture.height) * SHARE_OF_SHORTER_SIDE;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  const left = (picture.width - side) / 2;
  const top = (picture.height - side) / 2;
  context.drawImage(picture, left, top, side, side, 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(height * width * 3);
  for (let pixel = 0; pixel < height * width; pixel++) {
    rgb.set(rgba.subarray(4 * pixel, 4 * pixel + 3), 3 * pixel);
  }
  return new Tensor("UINT8", [1, height, width, 3], rgb);
}

async function labels() {
  const answer = await fetch("/labels.txt");
  return answer.ok ? (await answer.text()).trimEnd().split("\n") : [];
}

function showGuesses(probabilities, names) {
  const best = [...probabilities.keys()]
    .sort((a, b) => probabilities[b] - probabilities[a])
    .slice(0, GUESSES);
  element("guesses").replaceChildren(
    ...best.map((index) => {
      const item = document.createElement("li");
      const share = `${(100 * probabilities[index]).toFixed(1)} %`;
      item.innerHTML = `<div class="line"><span class="name"></span><span class="share">${share}</span></div>
        <div class="track"><div class="bar" style="width: ${share.replace(" ", "")}"></div></div>`;
      item.querySelector(".name").textContent = names[index] ?? `class ${index}`;
      return item;
    }),
  );
}

function showFacts(response, image, tookMs) {
  element("model").textContent = `${response.model}, version ${response.version}`;
  element("sent").textContent = `${image.data.length.toLocaleString("en")} bytes`;
  element("took").textContent = `${tookMs.toFixed(0)} ms`;
  element("executed").textContent = `${(response.timing.executeUs / 1000).toFixed(1)} ms`;
  element("facts").hidden = false;
}

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").className = isError ? "error" : "";
}

async function classify(file) {
  say("Asking …");
  try {
    const [{ inputs, outputs }, names, picture] = await Promise.all([
      client.metadata(MODEL),
      labels(),
      createImageBitmap(file),
    ]);
    const [{ name, shape }] = inputs;
    const image = pixelsOf(picture, shape);
    element("seen").hidden = false;
    element("invitation").hidden = true;
    element("drop").classList.add("full");
    const startedMs = performance.now();
    const response = await client.infer(MODEL, { [name]: image });
    const tookMs = performance.now() - startedMs;
    showGuesses(response.output(outputs[0].name, "FP32").data, names);
    showFacts(response, image, tookMs);
    say("");
  } catch (error) {
    element("guesses").replaceChildren();
    element("facts").hidden = true;
    say(String(error), true);
  }
}

element("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same picture can be chosen again
  if (file) classify(file);
});
const drop = element("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) classify(event.dataTransfer.files[0]);
  });
}
