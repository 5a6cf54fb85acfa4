// Only what needs a script; every page works without it.

// Theme: the system's unless a person chose; static/theme.js applies the choice before the first paint.
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
    try {
      localStorage.setItem("theme", choice);
    } catch {
      // Storage is blocked: the choice holds for this page.
    }
    showTheme();
  });
}

// Menus close on a click outside and on Escape, which gives the focus back.
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
