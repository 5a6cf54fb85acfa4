// The pages of deployments: one URL for all regions, confirmations in the page, the cursor over the charts and following
// logs. Everything here is also a link or a form that works without JavaScript.

// The URL holds the parameters of every region. A link or form sets only the parameters of its own regions ([data-sets]).
// The other parameters are taken from the current URL, because they may have changed since the page was rendered.
const OWNED = {
  window: ["range", "since", "until", "at"],
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

let shownWindow = windowOf(location.search);

function windowOf(search) {
  const query = new URLSearchParams(search);
  return OWNED.window.map((name) => query.get(name) ?? "").join(" ");
}

document.addEventListener("htmx:pushedIntoHistory", () => {
  updateLinks();
  if (windowOf(location.search) === shownWindow) return;
  shownWindow = windowOf(location.search);
  for (const region of document.querySelectorAll("#metrics, #logs")) htmx.trigger(region, "refresh");
});

// Show an error in a region that failed to load.
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    const waits = event.target.querySelector?.(":scope > [data-waits]");
    if (!waits) return;
    waits.hidden = true;
    event.target.querySelector(".notice").hidden = false;
  });
}

// A refresh of the list neither starts nor swaps while a request of the user is under way.
function isAsking() {
  return document.querySelector("#filters.htmx-request, .filter-chips .htmx-request, .pagination .htmx-request") !== null;
}

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches?.("[data-yields]") && isAsking()) event.preventDefault();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const asked = event.detail.requestConfig.elt;
  if (!event.detail.target.isConnected || (asked.matches("[data-yields]") && isAsking())) event.detail.shouldSwap = false;
});

// A confirmation takes the focus and returns it to the button that opened it when it is closed.
let opener = null;
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target?.id === "act" && !event.target.closest("#act")) opener = event.target.id || document.activeElement?.id;
});

function closeAct() {
  document.getElementById("act").replaceChildren();
  document.getElementById(opener)?.focus();
}

document.addEventListener("click", (event) => {
  const close = event.target.closest("#act [data-close]");
  if (!close) return;
  event.preventDefault();
  closeAct();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.closest?.("#act")) closeAct();
});
// A refusal is also a part of the page, so show it despite its error status.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "act" && [400, 403, 409, 422].includes(event.detail.xhr.status)) {
    event.detail.shouldSwap = event.detail.xhr.getResponseHeader("HX-Part") === "act";
    event.detail.isError = !event.detail.shouldSwap;
  }
});

// The list: checkboxes stay checked across refreshes. One checkbox selects all rows of the page.
const ticked = new Set();
document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.matches("[data-check-all]")) {
    for (const each of box.closest("table").querySelectorAll("tbody [type=checkbox]")) tickBox(each, box.checked);
  } else if (box.matches(".deployments tbody [type=checkbox]")) {
    tickBox(box, box.checked);
  } else if (box.matches("[data-remember]")) {
    savePreference(box);
  }
  showTicked();
});

function tickBox(box, isTicked) {
  box.checked = isTicked;
  if (isTicked) ticked.add(box.value);
  else ticked.delete(box.value);
}

function showTicked() {
  const boxes = [...document.querySelectorAll(".deployments tbody [type=checkbox]")];
  const count = boxes.filter((box) => box.checked).length;
  for (const all of document.querySelectorAll("[data-check-all]")) {
    all.closest("label").hidden = false;
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  }
  for (const words of document.querySelectorAll(".bulk-chosen")) write(words, `${count} selected:`);
}

// Preferences for logs, stored in this browser.
function savePreference(box) {
  try {
    localStorage.setItem(box.id, box.checked ? "1" : "0");
  } catch {
    // Storage is blocked: the choice lasts until the logs are loaded again.
  }
}

function loadPreferences() {
  try {
    for (const box of document.querySelectorAll("[data-remember]")) box.checked = localStorage.getItem(box.id) !== "0";
  } catch {
    // Storage is blocked: keep the defaults, wrapped lines with times.
  }
}

// Charts: one cursor over all of them. The slider makes it usable with the keyboard and screen readers.
function pointsOf(chart) {
  chart.points ??= [...chart.querySelectorAll("[data-place]")].map((row) => {
    const [time, value] = [...row.cells].map((cell) => cell.textContent);
    return [...row.dataset.place.split(" ").map(Number), value, time];
  });
  return chart.points;
}

function momentsOf(charts) {
  const moments = new Map();
  for (const chart of charts.querySelectorAll("[data-chart]")) {
    for (const [x, , , clock] of pointsOf(chart)) moments.set(x, clock);
  }
  return [...moments].sort(([a], [b]) => a - b);
}

function setUpCharts() {
  for (const charts of document.querySelectorAll("[data-charts]")) {
    charts.moments ??= momentsOf(charts);
    const cursor = charts.querySelector("[data-cursor]");
    const slider = cursor.querySelector("input");
    if (!cursor.hidden || charts.moments.length < 2) continue;
    cursor.hidden = false;
    slider.max = String(charts.moments.length - 1);
    slider.value = slider.max;
    slider.setAttribute("aria-valuetext", "latest");
  }
}

function showCursor(charts, index) {
  const [x, clock] = charts.moments[index];
  const words = [];
  for (const chart of charts.querySelectorAll("[data-chart]")) {
    const point = pointsOf(chart).find(([at]) => at === x);
    const line = chart.querySelector("[data-crosshair]");
    const dot = chart.querySelector("[data-dot]");
    line.setAttribute("visibility", "visible");
    line.setAttribute("x1", `${x}%`);
    line.setAttribute("x2", `${x}%`);
    dot.setAttribute("visibility", point ? "visible" : "hidden");
    if (point) {
      dot.setAttribute("cx", `${x}%`);
      dot.setAttribute("cy", `${point[1]}%`);
    }
    const value = point ? point[2] : "no data";
    write(chart.querySelector("[data-value]"), value);
    words.push(`${chart.dataset.chart} ${value}`);
  }
  const slider = charts.querySelector("[data-cursor] input");
  slider.value = String(index);
  slider.setAttribute("aria-valuetext", `${clock} UTC: ${words.join(", ")}`);
  write(charts.querySelector("[data-cursor-time]"), `${clock} UTC: ${words.join(", ")}`);
}

function hideCursor(charts) {
  for (const each of charts.querySelectorAll("[data-crosshair], [data-dot]")) each.setAttribute("visibility", "hidden");
  for (const value of charts.querySelectorAll("[data-value]")) write(value, value.dataset.latest);
}

function nearest(moments, x) {
  let found = 0;
  for (const [index, [at]] of moments.entries()) {
    if (Math.abs(at - x) < Math.abs(moments[found][0] - x)) found = index;
  }
  return found;
}

document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest?.(".plot");
  const charts = plot?.closest("[data-charts]");
  if (!charts?.moments?.length) return;
  const box = plot.getBoundingClientRect();
  showCursor(charts, nearest(charts.moments, (100 * (event.clientX - box.left)) / box.width));
});
document.addEventListener("pointerout", (event) => {
  const charts = event.target.closest?.("[data-charts]");
  const isOnSlider = document.activeElement?.id === "cursor-slider";
  if (charts && !charts.contains(event.relatedTarget) && !isOnSlider) hideCursor(charts);
});
document.addEventListener("input", (event) => {
  if (event.target.id !== "cursor-slider") return;
  showCursor(event.target.closest("[data-charts]"), Number(event.target.value));
});
document.addEventListener("focusin", (event) => {
  if (event.target.id === "cursor-slider") showCursor(event.target.closest("[data-charts]"), Number(event.target.value));
});
document.addEventListener("focusout", (event) => {
  if (event.target.id === "cursor-slider") hideCursor(event.target.closest("[data-charts]"));
});

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
  if (target === "act") {
    const errors = document.querySelector("#act [data-error-summary]");
    (errors ?? document.getElementById("act-title"))?.focus({ preventScroll: true });
    for (const close of document.querySelectorAll("#act [data-close]")) close.hidden = false;
  }
  if (target === "rows") {
    for (const box of document.querySelectorAll(".deployments tbody [type=checkbox]")) box.checked = ticked.has(box.value);
  }
  if (target === "logs") {
    isLogPaused = false;
    waiting = [];
  }
  setUpPage();
});

function setUpPage() {
  loadPreferences();
  setUpCharts();
  showTicked();
  showWaiting();
  showLine();
}

setUpPage();
