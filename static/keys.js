// Keyboard shortcuts of every page. They follow links of the page ([data-key]), so they do nothing that a click cannot.
const keysDialog = document.getElementById("keys");
const palette = document.getElementById("palette"); // only on pages of signed-in people
const singleKeys = document.getElementById("single-keys");

singleKeys.checked = keptChoice("single-keys") !== "off";
singleKeys.addEventListener("change", () => keepChoice("single-keys", singleKeys.checked ? "on" : "off"));

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

// The rows of a list: j and k move through their links, and Enter opens the focused one as always.
function linksOfRows() {
  const rows = document.querySelectorAll("main tbody tr, main [data-row]");
  return [...rows].map((row) => row.querySelector("th a[href]") ?? row.querySelector("a[href]")).filter((link) => link?.checkVisibility());
}

function moveInRows(step) {
  const links = linksOfRows();
  const here = document.activeElement.closest("tbody tr, [data-row]");
  const at = links.findIndex((link) => here?.contains(link));
  const next = at < 0 ? links[step > 0 ? 0 : links.length - 1] : links[at + step];
  if (next) next.focus();
  else announce(links.length === 0 ? "There is no list on this page." : "No more rows.");
}

const ACTS = {
  "?": () => openSheet(keysDialog),
  "r": refreshOnKey,
  "/": goToFilters,
  "j": () => moveInRows(1),
  "k": () => moveInRows(-1),
  "]": () => document.querySelector("main a[rel=next]")?.click(),
  "[": () => document.querySelector("main a[rel=prev]")?.click(),
};

// Another page needs two keys, so that a stray letter leaves nothing: g, then within GO_FOR the key of a link.
const GO = "g";
const GO_FOR = 1500;
let goingUntil = 0;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing || event.defaultPrevented) return;
  if (!singleKeys.checked || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const isGoing = performance.now() < goingUntil;
  goingUntil = event.key === GO && !isGoing ? performance.now() + GO_FOR : 0;
  const act = isGoing ? linkOf(event.key) : ACTS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

function linkOf(key) {
  const link = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === key);
  return link && (() => link.click());
}

// The command palette: a combobox over the links of the page and over what the server finds (portal/web/search.py), which
// htmx puts into #palette-found.
const paletteText = document.getElementById("palette-text");
const paletteList = document.getElementById("palette-list");
const SOURCES = [
  ["main a.button[href]:not(.quiet)", "On this page"],
  [".side-nav a[href]", "Page"],
  [".switcher li a:not([aria-current]), .choices-list a", "Organization"],
  [".account li a", "Account"],
];
let places = [];
let found = [];
let active = 0;
let failed = false;
let followsFirst = false; // Enter was pressed before the server answered

document.addEventListener("keydown", (event) => {
  if (!palette || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || event.key.toLowerCase() !== "k") return;
  event.preventDefault();
  if (palette.open) palette.close();
  else openSheet(palette);
});

function startPalette() {
  places = SOURCES.flatMap(([selector, kind]) => linksOf(selector).map((link) => ({ link, kind, label: wordsOf(link) })));
  paletteText.value = "";
  failed = followsFirst = false;
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
  const own = new Set(found.map(({ link }) => link.pathname + link.search));
  found.push(...foundByServer().filter(({ href }) => !own.has(href)));
  paletteList.replaceChildren(...found.map(optionOf));
  paletteList.hidden = found.length === 0;
  paletteText.setAttribute("aria-expanded", String(found.length > 0));
  write(document.getElementById("palette-count"), failed ? "Could not search. Try again." : countOf(found.length));
  activate(0);
}

function foundByServer() {
  if (isSearching()) return [];
  return [...document.querySelectorAll("#palette-found a")].map((link) => ({ href: link.getAttribute("href"), kind: link.dataset.kind, label: wordsOf(link) }));
}

// Whether the server has yet to answer for the text in the field.
function isSearching() {
  const text = paletteText.value;
  return paletteText.hasAttribute("hx-get") && text.trim() !== "" && !failed && document.querySelector("#palette-found .found")?.dataset.q !== text;
}

function countOf(number) {
  if (isSearching()) return "Searching.";
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

// The answer, or its failure.
function showAnswer() {
  if (!palette.open) return;
  showFound();
  if (followsFirst && !isSearching() && found.length > 0) follow(found[0]);
}

palette?.addEventListener("htmx:afterSettle", showAnswer);
onFailure((event) => {
  if (!palette?.contains(event.target)) return;
  failed = true;
  showAnswer();
});

function follow({ link, href }) {
  palette.close();
  // A link that a refresh has replaced is followed by its URL.
  if (link?.isConnected) link.click();
  else location.assign(href ?? link.href);
}

paletteText?.addEventListener("input", () => {
  failed = followsFirst = false;
  showFound();
});
paletteText?.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.isComposing) return;
  if (event.key === "Enter" && found.length === 0) followsFirst = isSearching();
  if (found.length === 0) return;
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
