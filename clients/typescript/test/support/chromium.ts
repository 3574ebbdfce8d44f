/** A real browser, without a network of its own. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type BrowserContext, chromium } from "playwright-core";

const PATH = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const QUIET = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Why tests in the browser are skipped, false if they are not. */
export const skipsChromium: string | false =
  !existsSync(PATH) && `${PATH} is not there: apt-get install chromium, or say CHROMIUM=...`;

/** Starts the browser with an empty profile, uses it, and ends it. */
export async function withChromium(use: (context: BrowserContext) => Promise<void>): Promise<void> {
  const profile = mkdtempSync(join(tmpdir(), "kingpole-chromium-"));
  const isRoot = process.getuid?.() === 0;
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: PATH,
    // Chromium has no sandbox for root.
    chromiumSandbox: !isRoot,
    args: QUIET,
    viewport: { width: 1000, height: 680 },
  });
  try {
    await use(context);
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  }
}
