// The pages of deployments and of a service's logs: one URL for all regions, the cursor over the charts and
// following logs. Everything here is also a link or a form that works without JavaScript.

// The URL holds the parameters of every region. A link or form sets only the parameters of its own regions ([data-sets]).
// The other parameters are taken from the current URL, because they may have changed since the page was rendered.
const OWNED = {
  window: ["range", "since", "until", "zone", "at"],
  timeline: ["event_type", "status", "skip"],
  logs: ["q", "level", "task", "order", "follow", "line", "cursor"],
  poll: ["after"],
};

function ownedBy(element) {
  return (element.dataset.sets ?? "").split(" ").filter(Boolean).flatMap((region) => OWNED[region]);
}

function mergedQuery(element, search) {
  const merged = new URLSearchParams(location.search);
  const own = new URLSearchParams(search);
  for (const name of ownedBy(element)) {
    merged.delete(name);
    if (own.get(name)) merged.set(name, own.get(name));
  }
  merged.delete("whole");
  return merged.size ? `?${merged}` : "";
}

document.addEventListener("htmx:configRequest", (event) => {
  const element = event.target;
  if (element.dataset?.sets === undefined) return;
  const [address, anchor] = event.detail.path.split("#");
  const [path, search] = address.split("?");
  event.detail.path = path + mergedQuery(element, search ?? "") + (anchor ? `#${anchor}` : "");
  if (!element.matches("form")) return;
  // The hidden fields with the parameters of other regions are only for browsers without JavaScript.
  const own = ownedBy(element);
  for (const [name, value] of [...event.detail.formData]) {
    if (value === "" || !own.includes(name)) event.detail.formData.delete(name);
  }
});

// Update the links, so that one opened in a new tab shows the same as this tab.
function updateLinks() {
  for (const link of document.querySelectorAll("a[data-sets]")) link.search = mergedQuery(link, link.search);
}

function windowOf(search) {
  const query = new URLSearchParams(search);
  return OWNED.window.map((name) => query.get(name)).join(" ");
}

// Metrics and logs follow the window, also if it moved while they were loading.
function followWindow() {
  for (const region of document.querySelectorAll("#metrics, #logs")) {
    const shown = region.getAttribute("hx-get").split("?")[1];
    if (windowOf(shown) !== windowOf(location.search)) htmx.trigger(region, "refresh");
  }
}

document.addEventListener("htmx:pushedIntoHistory", () => {
  updateLinks();
  followWindow();
});

// Show an error in a region that failed to load.
onFailure((event) => {
  const waits = event.target.querySelector(":scope > [data-waits]");
  if (!waits) return;
  waits.hidden = true;
  event.target.querySelector(".notice").hidden = false;
});

// A region that is no longer part of the page cannot be replaced.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (!event.detail.target.isConnected) event.detail.shouldSwap = false;
});

// Preferences for logs, stored in this browser.
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-remember]")) keepChoice(event.target.id, Number(event.target.checked));
});

function loadPreferences() {
  for (const box of document.querySelectorAll("[data-remember]")) box.checked = keptChoice(box.id) !== "0";
}

// Charts: one cursor over all of them, by pointer or with a slider. Dragging, or Enter twice on the slider, zooms into a range.
let rangeBegin = null; // in percent of the window
let shownClock = "";

function pointsOf(chart) {
  chart.points ??= [...chart.querySelectorAll("[data-place]")].map((row) => {
    const [time, value] = [...row.cells].map((cell) => cell.textContent);
    return [...row.dataset.place.split(" ").map(Number), value, time];
  });
  return chart.points;
}

function momentsOf(charts) {
  if (charts.moments) return charts.moments;
  const moments = new Map();
  for (const chart of charts.querySelectorAll("[data-chart]")) {
    for (const [x, , , clock] of pointsOf(chart)) moments.set(x, clock);
  }
  charts.moments = [...moments].sort(([a], [b]) => a - b);
  const last = charts.moments.length - 1;
  const shown = charts.moments.findIndex(([, clock]) => clock === shownClock);
  const slider = charts.querySelector("input");
  slider.max = last;
  slider.value = shown < 0 ? last : shown;
  slider.closest(".cursor").hidden = last < 0;
  return charts.moments;
}

function place(block, selector, attributes) {
  for (const each of block.querySelectorAll(selector)) {
    for (const name in attributes) each.setAttribute(name, attributes[name]);
  }
}

function showCursor(charts, index) {
  const [x, clock] = momentsOf(charts)[index];
  const words = [];
  for (const chart of charts.querySelectorAll("[data-chart]")) {
    const [, y, value] = pointsOf(chart).find(([at]) => at === x) ?? [x, 0, "no data"];
    place(chart, "[data-dot]", { cx: `${x}%`, cy: `${y}%`, r: value === "no data" ? 0 : 3.5 });
    write(chart.querySelector("[data-value]"), value);
    words.push(`${chart.dataset.chart} ${value}`);
  }
  shownClock = clock;
  charts.dataset.cursor = "on";
  const text = `${clock}: ${words.join(", ")}`;
  place(charts, "[data-crosshair]", { x1: `${x}%`, x2: `${x}%` });
  place(charts, "input", { "aria-valuetext": text });
  charts.querySelector("input").value = index;
  write(charts.querySelector("output"), text);
}

function hideCursor(charts) {
  shownClock = "";
  delete charts.dataset.cursor;
  for (const value of charts.querySelectorAll("[data-value]")) write(value, value.dataset.latest);
}

function showRange(charts, from, to) {
  place(charts, "[data-selection]", { x: `${Math.min(from, to)}%`, width: `${Math.abs(to - from)}%` });
}

function leaveRange(charts) {
  rangeBegin = null;
  showRange(charts, 0, 0);
}

function zoom(charts, from, to) {
  leaveRange(charts);
  const since = Number(charts.dataset.since);
  const form = document.querySelector(".custom-range form");
  for (const [name, x] of [["since", Math.min(from, to)], ["until", Math.max(from, to)]]) {
    const at = since + ((charts.dataset.until - since) * x) / 100;
    form.elements[name].value = new Date(1000 * at).toISOString().slice(0, 19);
  }
  if (form.elements.zone) form.elements.zone.value = "UTC";
  form.requestSubmit();
}

for (const type of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
  document.addEventListener(type, (event) => {
    const plot = event.target.closest?.(".plot");
    const charts = plot?.closest("[data-charts]");
    if (!charts || !momentsOf(charts).length) return;
    const box = plot.getBoundingClientRect();
    const x = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
    const isDragging = plot.hasPointerCapture(event.pointerId) && rangeBegin !== null;
    if (type === "pointerdown" && event.button === 0) {
      rangeBegin = x;
      plot.setPointerCapture(event.pointerId);
    } else if (type === "pointermove") {
      const far = charts.moments.map(([at]) => Math.abs(at - x));
      showCursor(charts, far.indexOf(Math.min(...far)));
      if (isDragging) showRange(charts, rangeBegin, x);
    } else if (isDragging && type === "pointerup" && Math.abs(x - rangeBegin) > 1) {
      zoom(charts, rangeBegin, x);
    } else if (isDragging) {
      leaveRange(charts);
    }
  });
}
document.addEventListener("pointerout", (event) => {
  const charts = event.target.closest?.("[data-charts]");
  if (charts && !charts.contains(event.relatedTarget) && document.activeElement?.id !== "cursor-slider") hideCursor(charts);
});
for (const type of ["input", "focusin", "focusout", "keydown"]) {
  document.addEventListener(type, (event) => {
    const slider = event.target;
    if (slider.id !== "cursor-slider") return;
    const charts = slider.closest("[data-charts]");
    const [x, clock] = momentsOf(charts)[slider.value];
    if (type === "focusout") {
      hideCursor(charts);
    } else if (type !== "keydown") {
      showCursor(charts, slider.value);
      if (rangeBegin !== null) showRange(charts, rangeBegin, x);
    } else if (event.key === "Enter" && rangeBegin === null) {
      rangeBegin = x;
      write(charts.querySelector("output"), `The range begins at ${clock}. Move on, then press Enter.`);
    } else if (event.key === "Enter" && x !== rangeBegin) {
      zoom(charts, rangeBegin, x);
    } else if (event.key === "Escape") {
      if (rangeBegin === null) document.getElementById("move-wider")?.click();
      else leaveRange(charts);
    }
  });
}

// Following logs: newer records take their place by time. While paused or scrolled away from the newest, they are counted.
const KEPT_RECORDS = 2000;
let isLogPaused = false;
let waiting = [];

function isNewestShown() {
  return Math.abs(document.getElementById("log-box").scrollTop) < 8;
}

function findShown(record) {
  return document.querySelector(`#log-lines > [id="${record.id}"]`);
}

function takeNewRecords(poll) {
  const byId = new Map(waiting.map((record) => [record.id, record]));
  for (const record of poll.querySelectorAll(".log-record")) {
    if (findShown(record)?.dataset.lines !== record.dataset.lines) byId.set(record.id, record);
  }
  poll.querySelector("ol").replaceChildren();
  waiting = [...byId.values()];
  showWaiting();
}

function placeRecord(record) {
  const list = document.getElementById("log-lines");
  const shown = findShown(record);
  record.classList.add("fresh");
  if (shown) return shown.replaceWith(record);
  const isNewestFirst = list.parentElement.classList.contains("newest");
  const records = isNewestFirst ? [...list.children].reverse() : [...list.children];
  const later = records.find((each) => Number(each.dataset.at) > Number(record.dataset.at));
  if (!later) return isNewestFirst ? list.prepend(record) : list.append(record);
  record.classList.add("late");
  return isNewestFirst ? later.after(record) : later.before(record);
}

function showWaiting() {
  const box = document.getElementById("log-box");
  if (!box) return;
  if (!isLogPaused && waiting.length && isNewestShown()) {
    waiting.forEach(placeRecord);
    waiting = [];
    const list = document.getElementById("log-lines");
    while (list.children.length > KEPT_RECORDS) {
      (box.classList.contains("newest") ? list.lastElementChild : list.firstElementChild).remove();
    }
    box.scrollTop = 0;
  }
  const pause = document.querySelector("[data-log-pause]");
  if (pause) {
    pause.hidden = false;
    write(pause, isLogPaused ? "Resume" : "Pause");
  }
  const words = document.querySelector("[data-log-waiting]");
  if (!words) return;
  const why = isLogPaused ? "Paused." : "Scroll to the newest to see them.";
  const records = `${waiting.length} new record${waiting.length === 1 ? "" : "s"}.`;
  write(words, waiting.length ? `${records} ${why}` : isLogPaused ? "Paused." : "Following.");
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-log-pause]")) return;
  isLogPaused = !isLogPaused;
  if (!isLogPaused) document.getElementById("log-box").scrollTop = 0;
  showWaiting();
});
document.addEventListener("scroll", (event) => {
  if (event.target.id === "log-box" && waiting.length) showWaiting();
}, { capture: true, passive: true });

function showLine() {
  const line = document.querySelector(".log-record.here");
  if (!line || line.dataset.seen) return;
  line.dataset.seen = "";
  line.scrollIntoView({ block: "center" });
}

// After each swap.
document.addEventListener("htmx:afterSwap", (event) => {
  const target = event.detail.target.id;
  if (target === "log-poll") {
    takeNewRecords(document.getElementById("log-poll"));
    return;
  }
  if (target === "logs") {
    isLogPaused = false;
    waiting = [];
  }
  followWindow();
  setUpPage();
});

function setUpPage() {
  loadPreferences();
  document.querySelectorAll("[data-charts]").forEach(momentsOf);
  showWaiting();
  showLine();
}

setUpPage();
