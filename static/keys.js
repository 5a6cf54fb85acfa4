// Keys on every page. Where a key leads is a link of the page itself ([data-key]), so it leads nowhere a click would not.
const keysDialog = document.getElementById("keys");
const singleKeys = document.getElementById("single-keys");

try {
  singleKeys.checked = localStorage.getItem("single-keys") !== "off";
} catch {
  // Storage is blocked: they are on.
}
singleKeys.addEventListener("change", () => {
  try {
    localStorage.setItem("single-keys", singleKeys.checked ? "on" : "off");
  } catch {
    // Storage is blocked: the choice holds for this page.
  }
});

for (const button of document.querySelectorAll("[data-opens]")) {
  button.hidden = false;
  button.addEventListener("click", () => document.getElementById(button.dataset.opens).showModal());
}

// A click beside a dialog closes it: its content covers it, so only the backdrop is the dialog itself.
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
  if (blocks.length === 0) announce("Nothing on this page refreshes.");
  else if (blocks.every((block) => paused.has(block.id))) announce("Refreshing is paused.");
  else refreshAll();
}

function goToFilters() {
  const filters = document.querySelector("main [role=search]");
  (filters?.querySelector("input:not([type=hidden])") ?? filters?.querySelector("select"))?.focus();
}

const ACTS = { "?": () => keysDialog.showModal(), "r": refreshOnKey, "/": goToFilters };

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
