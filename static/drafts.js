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
