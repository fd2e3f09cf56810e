// A real headless Chromium.
import { chromium } from "playwright-core";

const BINARY = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Playwright's browser; the caller closes it. */
export const startBrowser = () =>
  chromium.launch({ executablePath: BINARY, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
