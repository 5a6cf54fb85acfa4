// The upgrade form: the plan at the right is asked for anew by each change of the choices, and only what it shows can be
// started. Without this script the choices have a button that shows their plan.

const choices = document.getElementById("choices");

// From the change on until its plan is there, the plan that stands there is not the one that is chosen. The capture phase
// comes before htmx reads the form.
choices.addEventListener("change", (event) => {
  const start = document.getElementById("start");
  if (start) start.disabled = true;
  // What changed proposes the target, so the one that was chosen before does not count any more.
  if (event.target.name === "changed" && choices.querySelector("[name=changed]:checked")) {
    for (const radio of choices.querySelectorAll("[name=service]")) radio.checked = false;
  }
}, true);

let typedIn = null;
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "plan") typedIn = document.activeElement;
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "plan") return;
  const { target } = document.getElementById("plan").dataset;
  for (const radio of choices.querySelectorAll("[name=service]")) radio.checked = radio.value === target;
  // A field that is kept over the swap loses its focus where the browser cannot move it as it is.
  if (typedIn?.isConnected && document.activeElement === document.body) typedIn.focus();
});

for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    if (event.detail.target?.id !== "plan") return;
    document.getElementById("plan-late").hidden = false;
    announce("The portal did not answer. The plan is not for what is chosen now.");
  });
}

// Pre-flight comes after the page; it is said aloud when it has come, and asked for anew on demand.
document.addEventListener("htmx:afterSwap", (event) => {
  const panel = event.detail.target;
  if (!panel.matches(".preflight-panel")) return;
  announce(`Pre-flight: ${panel.querySelector("#preflight .notice, #preflight > p")?.textContent.trim()}`);
});
document.addEventListener("click", (event) => {
  const panel = event.target.closest("[data-check-again]")?.closest(".preflight-panel");
  if (!panel) return;
  event.preventDefault();
  htmx.trigger(panel, "refresh");
});
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    const panel = event.target.closest?.(".preflight-panel");
    if (!panel) return;
    panel.querySelector("[data-waits]")?.setAttribute("hidden", "");
    panel.querySelector("[data-unanswered]")?.removeAttribute("hidden");
    announce("The portal did not answer, so the checks are not known.");
  });
}

// A double click starts one upgrade: the server's key is the second guard.
document.addEventListener("submit", (event) => {
  if (event.target.id === "plan") setTimeout(() => { document.getElementById("start").disabled = true; });
});
