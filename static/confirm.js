// The confirmation of an action in the page that it acts on: #act. Without JavaScript it is a page of its own.

// A confirmation takes the focus and returns it to the button that opened it when it is closed.
let opener = null;
document.addEventListener("htmx:beforeRequest", (event) => {
  // Not `target.id`: a form with checkboxes of the name "id" has them there.
  if (event.detail.target?.id === "act" && !event.target.closest("#act")) opener = event.target.getAttribute("id") ?? document.activeElement?.id;
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
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "act") return;
  const errors = document.querySelector("#act [data-error-summary]");
  (errors ?? document.getElementById("act-title"))?.focus({ preventScroll: true });
  for (const close of document.querySelectorAll("#act [data-close]")) close.hidden = false;
});
