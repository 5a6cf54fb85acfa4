// Keyboard shortcuts of every page. A key follows a link of the page ([data-key]), so it does nothing that a click cannot.
const keysDialog = document.getElementById("keys");
const palette = document.getElementById("palette"); // only on pages of signed-in people
const singleKeys = document.getElementById("single-keys");

try {
  singleKeys.checked = localStorage.getItem("single-keys") !== "off";
} catch {
  singleKeys.checked = true; // Storage is blocked.
}
singleKeys.addEventListener("change", () => {
  try {
    localStorage.setItem("single-keys", singleKeys.checked ? "on" : "off");
  } catch {
    // Storage is blocked: the choice applies only to this page.
  }
});

for (const button of document.querySelectorAll("[data-opens]")) {
  button.hidden = false;
  button.addEventListener("click", () => openSheet(document.getElementById(button.dataset.opens)));
}

function openSheet(dialog) {
  if (dialog.open) return;
  document.querySelector("dialog.sheet[open]")?.close();
  dialog.showModal();
  if (dialog === palette) startPalette();
}

// A click outside a dialog closes it. A click on the backdrop has the dialog itself as its target.
document.addEventListener("click", (event) => {
  if (event.target.matches("dialog.sheet") && !isInside(event, event.target)) event.target.close();
});

function isInside(event, dialog) {
  const box = dialog.getBoundingClientRect();
  return event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
}

function isTyping(element) {
  return element.isContentEditable || element.matches("input, select, textarea");
}

function refreshOnKey() {
  const blocks = [...document.querySelectorAll("[data-live]")];
  if (blocks.length === 0) announce("Nothing on this page refreshes automatically.");
  else if (isPaused) announce("Refreshing is paused.");
  else refreshAll();
}

function goToFilters() {
  const filters = document.querySelector("main [role=search]");
  (filters?.querySelector("input:not([type=hidden])") ?? filters?.querySelector("select"))?.focus();
}

const ACTS = { "?": () => openSheet(keysDialog), "r": refreshOnKey, "/": goToFilters };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing || event.defaultPrevented) return;
  if (!singleKeys.checked || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const act = ACTS[event.key] ?? linkOf(event.key);
  if (!act) return;
  event.preventDefault();
  act();
});

function linkOf(key) {
  const link = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === key);
  return link && (() => link.click());
}

// The command palette: a combobox over the links of the page, so that it offers only what the page offers.
const paletteText = document.getElementById("palette-text");
const paletteList = document.getElementById("palette-list");
const SOURCES = [
  ["main a.button[href]:not(.quiet)", "On this page"],
  [".side-nav a[href]", "Page"],
  [".switcher li a:not([aria-current]), .choices-list a", "Organization"],
  [".account li a", "Account"],
];
const UPGRADE_ID = /^upgrade-[0-9-]+-[0-9a-f]+$/;
let places = [];
let found = [];
let active = 0;

document.addEventListener("keydown", (event) => {
  if (!palette || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || event.key.toLowerCase() !== "k") return;
  event.preventDefault();
  if (palette.open) palette.close();
  else openSheet(palette);
});

function startPalette() {
  places = SOURCES.flatMap(([selector, kind]) => linksOf(selector).map((link) => ({ link, kind, label: wordsOf(link) })));
  paletteText.value = "";
  showFound();
}

function linksOf(selector) {
  // Hidden links of the main content are not offered. Links in a closed menu are.
  return [...document.querySelectorAll(selector)].filter((link) => !link.closest("main") || link.checkVisibility());
}

function wordsOf(link) {
  return link.textContent.trim().replace(/\s+/g, " ");
}

function showFound() {
  const typed = paletteText.value.trim().toLowerCase();
  const words = typed.split(/\s+/);
  found = places.filter(({ label, kind }) => words.every((word) => `${label} ${kind}`.toLowerCase().includes(word)));
  const history = document.querySelector(".side-nav [data-key=h]");
  if (history && UPGRADE_ID.test(typed)) found.unshift({ href: `${history.href}${typed}/`, kind: "Upgrade", label: typed });
  paletteList.replaceChildren(...found.map(optionOf));
  paletteList.hidden = found.length === 0;
  paletteText.setAttribute("aria-expanded", String(found.length > 0));
  write(document.getElementById("palette-count"), countOf(found.length));
  activate(0);
}

function countOf(number) {
  if (number === 0) return "No matches.";
  return number === 1 ? "1 match" : `${number} matches`;
}

function optionOf({ label, kind }, index) {
  const option = document.createElement("li");
  option.id = `palette-${index}`;
  option.setAttribute("role", "option");
  for (const text of [label, kind]) option.append(Object.assign(document.createElement("span"), { textContent: text }), " ");
  return option;
}

function activate(index) {
  active = index;
  for (const [at, option] of [...paletteList.children].entries()) option.setAttribute("aria-selected", String(at === active));
  const option = paletteList.children[active];
  if (!option) paletteText.removeAttribute("aria-activedescendant");
  else paletteText.setAttribute("aria-activedescendant", option.id);
  option?.scrollIntoView({ block: "nearest" });
}

function follow({ link, href }) {
  palette.close();
  // A link that a refresh has replaced is followed by its URL.
  if (link?.isConnected) link.click();
  else location.assign(href ?? link.href);
}

paletteText?.addEventListener("input", showFound);
paletteText?.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.isComposing || found.length === 0) return;
  if (step) activate((active + step + found.length) % found.length);
  else if (event.key === "Enter") follow(found[active]);
  else return;
  event.preventDefault();
});
paletteList?.addEventListener("pointerdown", (event) => event.preventDefault()); // keep the focus in the field
paletteList?.addEventListener("click", (event) => {
  const option = event.target.closest("[role=option]");
  if (option) follow(found[[...paletteList.children].indexOf(option)]);
});
