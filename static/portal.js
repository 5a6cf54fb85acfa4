// Enhancements only: every page works without this script.

// What a person chose is kept in this browser. Where storage is blocked, a choice applies only to this page.
function keepChoice(name, choice) {
  try {
    localStorage.setItem(name, choice);
  } catch {}
}

function keptChoice(name) {
  try {
    return localStorage.getItem(name);
  } catch {}
}

// Theme: the system's unless the person chose one. static/theme.js applies the choice before the first paint.
const themes = document.querySelector(".themes");

function showTheme() {
  const chosen = document.documentElement.dataset.theme ?? "system";
  for (const button of themes.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.themeChoice === chosen));
  }
}

if (themes) {
  themes.hidden = false;
  showTheme();
  themes.addEventListener("click", (event) => {
    const choice = event.target.dataset?.themeChoice;
    if (!choice) return;
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    keepChoice("theme", choice);
    showTheme();
  });
}

// Menus close on a click outside and on Escape, which returns the focus.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = document.querySelector("details[data-menu][open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

// Relative times, kept current while the page is open. portal/templatetags/formatting.py renders the same texts at first.
// The server's clock is used, because the local one may be wrong.
const clockOffset = Date.parse(document.documentElement.dataset.now) - Date.now();

function ago(iso) {
  const seconds = Math.floor((Date.now() + clockOffset - Date.parse(iso)) / 1000);
  if (seconds < 2) return "just now";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

function lasting(iso) {
  const seconds = Math.max(0, Math.floor((Date.now() + clockOffset - Date.parse(iso)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`.replace(/ 0 s$/, "");
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`.replace(/ 0 min$/, "");
}

function until(iso) {
  const seconds = Math.floor((Date.parse(iso) - Date.now() - clockOffset) / 1000);
  if (seconds < 1) return "any moment now";
  if (seconds < 60) return `in ${seconds} s`;
  if (seconds < 3600) return `in ${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `in ${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`.replace(/ 0 min$/, "");
  return `in ${Math.floor(seconds / 86400)} d`;
}

// `2026-05-01 12:00:00` in the person's zone, as portal/templatetags/formatting.py writes it.
function inZone(iso) {
  const style = { timeZone: document.documentElement.dataset.zone, dateStyle: "short", timeStyle: "medium" };
  return new Intl.DateTimeFormat("sv-SE", style).format(new Date(iso));
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Live blocks show their age, and ask for themselves again every [data-live] seconds: ever less often while nothing
// changes, at [data-live] again after a change or an action. When that fails they keep the last data and turn amber.
// A hidden page asks for nothing: nobody looks at it, and its requests would keep the session alive.
const SLOWER = 1.5;
const SLOWEST = 10;
const failing = new Set();
let isPaused = false; // one pause for all blocks of a page
const paces = new Map(); // by the block's id: seconds between two requests, and when the next one is due
const asking = new Set();

function paceOf(block) {
  const live = Number(block.dataset.live);
  let pace = paces.get(block.id);
  if (!pace || pace.live !== live) {
    pace = { live, seconds: live, dueAt: Date.now() + live * 1000 };
    paces.set(block.id, pace);
  }
  return pace;
}

function setPace(block, seconds) {
  const pace = paceOf(block);
  pace.seconds = seconds;
  pace.dueAt = Date.now() + seconds * 1000;
}

function slowDown(block) {
  const { live, seconds } = paceOf(block);
  setPace(block, Math.min(seconds * SLOWER, Math.max(live, SLOWEST)));
}

function askAgain() {
  if (document.hidden) return;
  for (const block of document.querySelectorAll("[data-live]")) {
    const isDue = Date.now() >= paceOf(block).dueAt;
    if (isDue && !isPaused && !asking.has(block.id)) htmx.trigger(block, "refresh");
  }
}

document.addEventListener("htmx:beforeSend", (event) => { asking.add(event.target.id); });
document.addEventListener("htmx:afterRequest", (event) => {
  const { requestConfig, target, xhr } = event.detail;
  asking.delete(requestConfig.elt.id);
  const block = document.getElementById(target?.id);
  if (!block?.matches("[data-live]")) return;
  if (xhr.status === 304) slowDown(block);
  else setPace(block, Number(block.dataset.live));
});
document.addEventListener("changed", () => {
  for (const block of document.querySelectorAll("[data-live]")) setPace(block, Number(block.dataset.live));
});

// The page's one dot also stands for blocks without an age of their own.
function isFailing(block) {
  return [...failing].some((id) => id === block.id || !document.querySelector(`#${id} [data-freshness]`));
}

function showFreshness(freshness) {
  const block = freshness.closest("[data-live]");
  if (!block) return;
  const { freshness: what, at } = freshness.dataset;
  const isLate = Date.now() + clockOffset - Date.parse(at) > (3 * paceOf(block).seconds + 5) * 1000;
  const pause = freshness.querySelector("[data-pause]");
  if (pause) {
    pause.hidden = pause !== document.querySelector("[data-live] [data-pause]");
    write(pause, isPaused ? "Resume" : "Pause refreshing");
  }
  freshness.classList.toggle("failing", !isPaused && (isFailing(block) || isLate));
  let text = `${what} ${ago(at)}.`;
  if (isPaused) text = `Paused. ${text}`;
  else if (isFailing(block)) text = `Cannot reach the portal. Retrying. Data from ${ago(at)}.`;
  write(freshness.querySelector("[data-freshness-text]"), text);
}

function tick() {
  for (const time of document.querySelectorAll("time[data-relative]")) write(time, ago(time.dateTime));
  for (const time of document.querySelectorAll("time[data-lasting]")) write(time, lasting(time.dateTime));
  for (const time of document.querySelectorAll("time[data-until]")) write(time, until(time.dateTime));
  for (const checked of document.querySelectorAll("[data-ages]")) {
    const seconds = (Date.now() + clockOffset - Date.parse(checked.querySelector("time").dateTime)) / 1000;
    checked.classList.toggle("old", seconds > Number(checked.dataset.ages));
  }
  for (const freshness of document.querySelectorAll("[data-freshness]")) showFreshness(freshness);
}

function announce(text) {
  write(document.getElementById("announcer"), text);
}

function noteFailure(event) {
  const block = event.target.closest("[data-live]");
  if (!block) return;
  if (!failing.has(block.id)) announce("Cannot reach the portal. The page shows the last data.");
  failing.add(block.id);
  tick();
}

function onFailure(act) {
  for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) document.addEventListener(name, act);
}
onFailure(noteFailure);
document.addEventListener("htmx:beforeRequest", (event) => {
  const isPoll = !event.detail.requestConfig.triggeringEvent && event.target.matches("[hx-trigger^=every]");
  if ((isPaused && event.target.matches("[data-live]")) || (isPoll && document.hidden)) event.preventDefault();
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-pause]")) return;
  isPaused = !isPaused;
  if (!isPaused) refreshAll();
  tick();
});

// A tab that was hidden or offline refreshes immediately.
function refreshAll() {
  if (document.hidden) return;
  for (const block of document.querySelectorAll("[data-live]")) htmx.trigger(block, "refresh");
}
document.addEventListener("visibilitychange", refreshAll);
window.addEventListener("online", refreshAll);

// A swap is skipped while the pointer is down in the block or text in it is selected: a click must not miss, and a
// selected error message must stay selected until it is copied. The next refresh catches up.
let pressed = null;
document.addEventListener("pointerdown", (event) => { pressed = event.target; });
for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { pressed = null; });

function isHeld(block) {
  const selection = document.getSelection();
  return block.contains(pressed) || (!selection.isCollapsed && block.contains(selection.anchorNode));
}

// Across a swap, opened details stay open, changes are marked, and a new state is announced once. A response may bring
// along another block of the page ([data-along] is its id).
const CHANGED_FOR = 4000; // the duration of the fade (portal.css: .changed)
const changedAt = new Map();
let before = new Map();

function remember(block) {
  before.set(block.id, {
    announced: block.dataset.announce,
    open: [...block.querySelectorAll("details[data-keep-open][open]")].map((details) => details.id),
    watched: new Map([...block.querySelectorAll("[data-watch]")].map((each) => [each.dataset.watch, each.textContent])),
  });
}

function restore(block) {
  const earlier = before.get(block.id);
  for (const id of earlier.open) document.getElementById(id)?.setAttribute("open", "");
  for (const each of block.querySelectorAll("[data-watch]")) markChange(each, earlier.watched.get(each.dataset.watch));
  if (block.dataset.announce && block.dataset.announce !== earlier.announced) announce(block.dataset.announce);
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const block = event.detail.target;
  if (!event.detail.shouldSwap) return;
  if (failing.delete(block.id)) announce("Refreshing again.");
  if (event.detail.xhr.status === 304) {
    event.detail.shouldSwap = false;
    showAge(block, event.detail.xhr);
    tick();
    return;
  }
  const along = document.getElementById(block.dataset.along);
  const blocks = along ? [block, along] : [block];
  if (block.matches("[data-live]") && blocks.some(isHeld)) {
    event.detail.shouldSwap = false;
    return;
  }
  before = new Map();
  blocks.forEach(remember);
});

document.addEventListener("htmx:afterSwap", (event) => {
  const block = document.getElementById(event.detail.target.id);
  if (!block || !before.has(block.id)) return;
  for (const id of before.keys()) restore(document.getElementById(id));
  if (block.dataset.title) document.title = block.dataset.title + document.title.slice(document.title.indexOf(" · "));
  if (block.dataset.heading) write(document.querySelector("h1"), block.dataset.heading);
  block.contentTag = event.detail.xhr.getResponseHeader("ETag");
  showAge(block, event.detail.xhr);
  before = new Map();
  keepTurning();
  tick();
});

// The browser keeps no copy of a block (no-store), so each block remembers its tag. Unchanged content is answered 304.
document.addEventListener("htmx:configRequest", (event) => {
  const { elt, target, verb, headers } = event.detail;
  const tag = target?.contentTag ?? target?.dataset.tag;
  if (verb === "get" && elt === target && tag) headers["If-None-Match"] = tag;
});

function showAge(block, xhr) {
  const asOf = xhr.getResponseHeader("X-As-Of");
  for (const freshness of block.querySelectorAll("[data-freshness]")) if (asOf) freshness.dataset.at = asOf;
  for (const moved of (xhr.getResponseHeader("X-Times") ?? "").split(" ")) {
    const [name, time] = moved.split("=");
    for (const each of name ? block.querySelectorAll(`time[data-name="${name}"]`) : []) {
      const exact = inZone(time);
      each.dateTime = time;
      each.title = exact + each.title.slice(exact.length);
      if (!each.matches("[data-relative]")) write(each, exact);
    }
  }
}

function markChange(element, earlier) {
  const key = element.dataset.watch;
  if (earlier !== undefined && earlier !== element.textContent) changedAt.set(key, performance.now());
  const elapsed = performance.now() - (changedAt.get(key) ?? -CHANGED_FOR);
  if (elapsed >= CHANGED_FOR) return;
  element.classList.add("changed");
  for (const animation of element.getAnimations()) animation.currentTime = elapsed;
}

// All spinners share one clock, so that a spinner replaced by a swap continues at the same angle.
function keepTurning() {
  for (const animation of document.getAnimations()) {
    if (animation.animationName === "turn") animation.startTime = 0;
  }
}

// Filters: empty fields are left out of the URL, and back links restore the filters.
document.addEventListener("htmx:configRequest", (event) => {
  if (!event.target.matches("[data-filters]")) return;
  for (const [name, value] of [...event.detail.formData]) {
    if (value === "") event.detail.formData.delete(name);
  }
});

function keepFilters() {
  try {
    if (document.querySelector("[data-filters]")) sessionStorage.setItem(location.pathname, location.search);
    for (const link of document.querySelectorAll("[data-back]")) link.search = sessionStorage.getItem(link.pathname) ?? "";
  } catch {
    // Storage is blocked: back links lead to the unfiltered list.
  }
}
document.addEventListener("htmx:pushedIntoHistory", keepFilters);

// Marks the saved view whose filters are in the URL, as portal/templatetags/saved_views.py does at first.
document.addEventListener("htmx:pushedIntoHistory", () => {
  for (const link of document.querySelectorAll("[data-views] a:not(.plain)")) {
    const isShown = filtersOf(link.search) === filtersOf(location.search);
    if (isShown) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
});

function filtersOf(search) {
  const filters = new URLSearchParams(search);
  for (const name of ["skip", "view"]) filters.delete(name);
  filters.sort();
  return filters.toString();
}

// Copy: a text ([data-copy-text], empty for the address of the page), or that of an element ([data-copy] is its id).
// Without clipboard access (plain HTTP, or denied) the text is shown and selected, to be copied by hand.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-copy-text]");
  if (!button) return;
  const shown = document.getElementById(button.dataset.copy);
  const text = shown?.textContent ?? (button.dataset.copyText || location.href);
  const label = button.dataset.label ??= button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied.");
    write(button, "Copied");
    setTimeout(() => write(button, label), 2000);
  } catch {
    shown?.closest("details")?.setAttribute("open", "");
    if (!shown) write(button, text);
    document.getSelection().selectAllChildren(shown ?? button);
    announce("Could not copy. The text is selected: copy it by hand.");
  }
});

// Prevents double submission of a form by a double click. The server's idempotency key is the second guard.
document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-once]")) return;
  for (const button of event.target.querySelectorAll("[type=submit]")) setTimeout(() => { button.disabled = true; });
});
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("[data-once] [type=submit]")) button.disabled = false;
});

// After a form error the focus goes to the list of errors, whose links lead to the fields.
document.querySelector("[data-error-summary]")?.focus();

// When the session ends, what was typed is kept across signing in: in this tab only, and never passwords or secrets.
// A draft is saved when a form is sent and when a refresh is refused, and restored only if the sign-in page came between.
const DRAFT = "draft";
const THROUGH_SIGN_IN = "draft-through-sign-in";
const UNTYPED = ["hidden", "password", "file", "submit", "button", "image", "reset"];

function typedFields() {
  return [...document.querySelectorAll("main form[method=post]")].flatMap((form, number) =>
    [...form.elements]
      .filter((field) => field.name && !UNTYPED.includes(field.type) && field.dataset.secret === undefined)
      .map((field) => ({ field, id: [form.getAttribute("action") ?? "", number, field.name, field.type] })));
}

function isTicked(field) {
  return field.type === "checkbox" || field.type === "radio";
}

function saveDraft() {
  const fields = typedFields().map(({ field, id }) => [...id, field.value, isTicked(field) ? field.checked : null]);
  const { person } = document.querySelector("[data-person]")?.dataset ?? {};
  if (!person || fields.length === 0) return;
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify({ page: location.pathname + location.search, person, fields }));
    sessionStorage.removeItem(THROUGH_SIGN_IN);
  } catch {
    // Storage is blocked or full: nothing is kept.
  }
}

function restoreDraft() {
  let draft = null;
  try {
    if (location.pathname.startsWith("/accounts/")) {
      sessionStorage.setItem(THROUGH_SIGN_IN, "1");
      return;
    }
    if (sessionStorage.getItem(THROUGH_SIGN_IN)) draft = JSON.parse(sessionStorage.getItem(DRAFT));
    sessionStorage.removeItem(DRAFT);
    sessionStorage.removeItem(THROUGH_SIGN_IN);
  } catch {
    return;
  }
  const { person } = document.querySelector("[data-person]")?.dataset ?? {};
  if (!draft || draft.page !== location.pathname + location.search || draft.person !== person) return;
  const kept = new Map(draft.fields.map(([action, number, name, type, value, checked]) =>
    [JSON.stringify([action, number, name, type, ...(checked === null ? [] : [value])]), { value, checked }]));
  for (const { field, id } of typedFields()) {
    const typed = kept.get(JSON.stringify([...id, ...(isTicked(field) ? [field.value] : [])]));
    if (!typed) continue;
    if (isTicked(field)) field.checked = typed.checked;
    else field.value = typed.value;
  }
  announce("What you typed before the session ended is kept.");
}

document.addEventListener("submit", (event) => {
  if (event.target.matches("main form[method=post]")) saveDraft();
});
document.addEventListener("htmx:beforeOnLoad", (event) => {
  if (event.detail.xhr.status === 401) saveDraft();
});

restoreDraft();
keepFilters();
keepTurning();
tick();
setInterval(tick, 1000);
setInterval(askAgain, 1000);
