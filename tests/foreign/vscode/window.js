// A window of VS Code, moved by one JSON array a line: [verb, ...arguments]; one JSON value a line comes back.
//
//     node window.js MODULES CHROMIUM URL
const path = require("node:path");
const readline = require("node:readline");

const [modules, executablePath, url] = process.argv.slice(2);
const { chromium } = require(path.join(modules, "playwright-core"));

// A loaded two-core machine takes its time to open a window.
const PATIENCE = 60000;

const verbs = (page) => ({
  // What the person types, a key at a time.
  press: async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  },
  type: (text) => page.keyboard.insertText(text),
  // A command of the palette, by its title.
  command: async (title) => {
    await page.keyboard.press("F1");
    await page.locator(".quick-input-widget input").fill(`>${title}`);
    await page.locator(".quick-input-list .monaco-list-row", { hasText: title }).first().click();
  },
  // A file of the folder, with the cursor in a line.
  file: async (name, line) => {
    await page.keyboard.press("Control+p");
    await page.locator(".quick-input-widget input").fill(`${name}:${line}`);
    await page.locator(".quick-input-list .monaco-list-row", { hasText: name }).first().click();
    await page.locator(".tab.active", { hasText: name }).waitFor();
    await page.locator(".statusbar-item", { hasText: `Ln ${line}, ` }).first().waitFor();
  },
  // Waits for an element with that text; the text of the first.
  see: async (selector, text) => {
    const found = page.locator(selector, text ? { hasText: text } : {}).first();
    await found.waitFor();
    return found.innerText();
  },
  gone: (selector) => page.locator(selector).first().waitFor({ state: "hidden" }),
  // What is shown now.
  texts: (selector) => page.locator(selector).allInnerTexts(),
  labels: (selector) =>
    page.locator(selector).evaluateAll((all) => all.map((one) => one.getAttribute("aria-label"))),
  click: (selector, text, options) =>
    page.locator(selector, text ? { hasText: text } : {}).first().click(options || {}),
  hover: (selector, text) => page.locator(selector, text ? { hasText: text } : {}).first().hover(),
  picture: async (file) => void (await page.screenshot({ path: file })),
});

(async () => {
  const options = { executablePath, args: ["--no-sandbox", "--disable-gpu"] };
  const browser = await chromium.launch(options);
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(PATIENCE);
  await page.goto(url);
  await page.locator(".monaco-workbench .explorer-folders-view .monaco-list-row").first().waitFor();
  const known = verbs(page);
  console.log(JSON.stringify("open"));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [verb, ...words] = JSON.parse(line);
    try {
      console.log(JSON.stringify({ value: (await known[verb](...words)) ?? null }));
    } catch (error) {
      console.log(JSON.stringify({ error: error.message }));
    }
  }
  await browser.close();
})();
