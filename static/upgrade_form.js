// The upgrade form. Each change of the choices reloads the plan, and only the plan shown can be started.
// Without this script the choices have a button that shows their plan.

const choices = document.getElementById("choices");

// From the change until the new plan arrives, the plan shown does not match the choices. The capture phase runs before
// htmx reads the form.
choices.addEventListener("change", (event) => {
  const start = document.getElementById("start");
  if (start) start.disabled = true;
  // The changes suggest the target, so clear the target that was selected before.
  if (event.target.name === "changed" && choices.querySelector("[name=changed]:checked")) {
    for (const radio of choices.querySelectorAll("[name=service]")) radio.checked = false;
  }
}, true);

// The reason is preserved across plans, but only some plans require it.
function requireReason() {
  const reason = document.getElementById("id_reason");
  if (reason) reason.required = "wide" in document.getElementById("plan").dataset;
}
requireReason();

let typedIn = null;
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "plan") typedIn = document.activeElement;
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "plan") return;
  const { target } = document.getElementById("plan").dataset;
  requireReason();
  for (const radio of choices.querySelectorAll("[name=service]")) radio.checked = radio.value === target;
  // A preserved field loses focus during the swap if the browser cannot move it without removing it.
  if (typedIn?.isConnected && document.activeElement === document.body) typedIn.focus();
});

for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    if (event.detail.target?.id !== "plan") return;
    document.getElementById("plan-late").hidden = false;
    announce("Cannot reach the portal. The plan does not match your choices.");
  });
}

// Pre-flight loads after the page. Its result is announced, and a link runs it again.
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
    announce("Cannot reach the portal. The check results are not known.");
  });
}

// Prevents a double click from starting two upgrades. The idempotency key on the server is the second guard.
document.addEventListener("submit", (event) => {
  if (event.target.id === "plan") setTimeout(() => { document.getElementById("start").disabled = true; });
});
