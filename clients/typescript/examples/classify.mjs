/**
 * Classifies a PNG picture with the demo model:
 * `node classify.mjs PICTURE.png [--url http://localhost:8000] [--labels server/kingpole/demo/labels.txt]`.
 *
 * Needs `npm install @kingpole/client pngjs`, and for `grpc://` also `@grpc/grpc-js`.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { connect, Tensor } from "@kingpole/client/node";
import { PNG } from "pngjs";

const GUESSES = 5;
// The model's pictures were made by shrinking the shorter side to 256 and cutting out the middle 224.
const SHARE_OF_SHORTER_SIDE = 224 / 256;

/** Returns the mean colour of a rectangle of pixels. */
function meanColor({ data, width }, left, top, right, bottom) {
  const sum = [0, 0, 0];
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      for (let channel = 0; channel < 3; channel++) sum[channel] += data[4 * (y * width + x) + channel];
    }
  }
  return sum.map((total) => Math.round(total / ((right - left) * (bottom - top))));
}

/** Returns the picture's middle as raw RGB, UINT8 of shape (1, height, width, 3). */
function pixelsOf(picture, height, width) {
  const side = Math.min(picture.width, picture.height) * SHARE_OF_SHORTER_SIDE;
  const [left, top] = [(picture.width - side) / 2, (picture.height - side) / 2];
  const edge = (start, step, count) => Math.floor(start + (step * side) / count);
  const rgb = new Uint8Array(height * width * 3);
  for (let row = 0; row < height; row++) {
    const [above, below] = [edge(top, row, height), edge(top, row + 1, height)];
    for (let column = 0; column < width; column++) {
      const [before, behind] = [edge(left, column, width), edge(left, column + 1, width)];
      const color = meanColor(
        picture,
        before,
        above,
        Math.max(behind, before + 1),
        Math.max(below, above + 1),
      );
      rgb.set(color, 3 * (row * width + column));
    }
  }
  return new Tensor("UINT8", [1, height, width, 3], rgb);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string", default: "http://localhost:8000" },
    model: { type: "string", default: "efficientnet-lite0" },
    labels: { type: "string" },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node classify.mjs PICTURE.png [--url URL] [--model NAME] [--labels FILE]");
  process.exit(2);
}
const labels = values.labels === undefined ? [] : readFileSync(values.labels, "utf8").split("\n");
const picture = PNG.sync.read(readFileSync(positionals[0]));

const client = connect(values.url, { timeoutMs: 10_000 });
try {
  const { inputs, outputs } = await client.metadata(values.model);
  const [{ name, datatype, shape }] = inputs;
  if (datatype !== "UINT8" || shape.length !== 4 || shape[3] !== 3) {
    throw new Error(`${values.model} takes ${datatype} [${shape}], which is no raw RGB picture`);
  }
  const image = pixelsOf(picture, shape[1], shape[2]);
  const response = await client.infer(values.model, { [name]: image });
  const probabilities = response.output(outputs[0].name, "FP32").data;
  const best = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  for (const index of best.slice(0, GUESSES)) {
    const share = (100 * probabilities[index]).toFixed(2).padStart(6);
    console.log(`${share}%  ${labels[index] ?? `class ${index}`}`);
  }
} finally {
  client.close();
}
