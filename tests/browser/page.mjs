// Opens the page in Chromium as a person would: at a desk and on a phone, in light and in dark. Fails on a console error,
// a request to another host, a page wider than the screen, or one that does not update itself.
//
// usage: node page.mjs URL [FOLDER FOR PICTURES]
import { chromium } from "playwright-core";
import { strict as assert } from "node:assert";

const [url, folder] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  for (const [name, width, height] of [["desk", 1100, 900], ["phone", 390, 844]]) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await browser.newPage({ viewport: { width, height }, colorScheme });
      const errors = [];
      page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
      page.on("pageerror", (e) => errors.push(String(e)));
      page.on("request", (r) => {
        const to = new URL(r.url());
        if (to.protocol !== "data:" && to.origin !== new URL(url).origin) errors.push(`request to ${to.origin}`);
      });
      await page.goto(url);
      assert.equal(await page.locator("h1").innerText(), "forewarn");
      await page.getByText("What will run out").first().waitFor();
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `${name}: ${wide} pixels wider than the screen`);
      const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const dark = background.match(/\d+/g).slice(0, 3).every((c) => Number(c) < 64);
      assert.equal(dark, colorScheme === "dark", `${name}: background ${background} in ${colorScheme}`);
      if (name === "desk" && colorScheme === "light") {
        const shown = await page.locator("time").getAttribute("datetime");
        await page.waitForFunction((t) => document.querySelector("time").dateTime !== t, shown, { timeout: 15000 });
      }
      if (folder) await page.screenshot({ path: `${folder}/page-${name}-${colorScheme}.png`, fullPage: false });
      assert.deepEqual(errors, [], name);
      await page.close();
    }
  }
} finally {
  await browser.close();
}
console.log("page: ok");
