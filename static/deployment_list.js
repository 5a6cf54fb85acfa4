// The list of deployments: its checkboxes and its refreshes. confirm.js shows what its bulk actions will do.

// A refresh of the list neither starts nor swaps while a request of the user is under way.
function isAsking() {
  return document.querySelector("#filters.htmx-request, .filter-chips .htmx-request, .pagination .htmx-request") !== null;
}

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches?.("[data-yields]") && isAsking()) event.preventDefault();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const asked = event.detail.requestConfig.elt;
  if (asked.matches("[data-yields]") && isAsking()) event.detail.shouldSwap = false;
});

// The list: checkboxes stay checked across refreshes. One checkbox selects all rows of the page.
const ticked = new Set();
document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.matches("[data-check-all]")) {
    for (const each of box.closest("table").querySelectorAll("tbody [type=checkbox]")) tickBox(each, box.checked);
  } else if (box.matches(".deployments tbody [type=checkbox]")) {
    tickBox(box, box.checked);
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

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "rows") {
    for (const box of document.querySelectorAll(".deployments tbody [type=checkbox]")) box.checked = ticked.has(box.value);
  }
  showTicked();
});

showTicked();
