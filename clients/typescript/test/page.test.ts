/** The example's page in a real browser, with the demo model. */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { skipsChromium, withChromium } from "./support/chromium.js";
import { ROOT, skipsServer, startServer, startSite } from "./support/processes.js";

/** Made by `make demo`; `KINGPOLE_DEMO` says another place. */
const DEMO = process.env["KINGPOLE_DEMO"] ?? `${ROOT}.cache/demo`;
const PICTURE = process.env["KINGPOLE_DEMO_PICTURE"] ?? coffee();
const skipsDemo =
  (!existsSync(DEMO) && `no demo model at ${DEMO}: make demo`) ||
  (!existsSync(PICTURE) && "scikit-image's picture of coffee is not here: make setup");

/** Finds scikit-image's picture of a cup of coffee where `make setup` puts it. */
function coffee(): string {
  const libraries = `${ROOT}.venv/lib`;
  const pythons = existsSync(libraries) ? readdirSync(libraries) : [];
  const pictures = pythons.map((python) => `${libraries}/${python}/site-packages/skimage/data/coffee.png`);
  return pictures.find((path) => existsSync(path)) ?? "";
}

const skip = skipsServer || skipsChromium || skipsDemo;

test(
  "the page says espresso to a picture of coffee, and says so when the server is gone",
  { skip },
  async () => {
    const server = await startServer(DEMO);
    const site = await startSite(server.found[1] ?? "");
    const shots = process.env["SCREENSHOTS"];
    try {
      await withChromium(async (context) => {
        const page = await context.newPage();
        await page.goto(site.found[1] ?? "");
        if (shots !== undefined) await page.screenshot({ path: `${shots}/page-empty.png` });
        await page.setInputFiles("#file", PICTURE);
        await page.waitForSelector("#guesses li, #status.error");
        // The bars grow.
        await page.waitForTimeout(600);
        if (shots !== undefined) await page.screenshot({ path: `${shots}/page-coffee.png` });
        const names = await page.locator("#guesses .name").allTextContents();
        assert.equal(names.length, 5, await page.textContent("#status").then(String));
        assert.equal(names[0], "espresso");
        const shares = (await page.locator("#guesses .share").allTextContents()).map(parseFloat);
        assert.deepEqual(
          [...shares].sort((a, b) => b - a),
          shares,
        );

        await server.stop();
        await page.setInputFiles("#file", PICTURE);
        await page.waitForSelector("#status.error");
        if (shots !== undefined) await page.screenshot({ path: `${shots}/page-error.png` });
        assert.match(String(await page.textContent("#status")), /Unavailable/);
        assert.equal(await page.locator("#guesses li").count(), 0);
      });
    } finally {
      await site.stop();
      await server.stop();
    }
  },
);
