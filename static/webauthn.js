// Says on the page what allauth's passkey scripts only tell the console.
document.addEventListener("allauth.error", (event) => {
  event.preventDefault();
  const { exception } = event.detail;
  const cancelled = exception.name === "NotAllowedError" || exception.name === "AbortError";
  const notice = document.querySelector("#passkey-notice") ?? document.createElement("div");
  notice.id = "passkey-notice";
  notice.className = "notice bad";
  notice.setAttribute("role", "alert");
  const text = document.createElement("p");
  text.textContent = cancelled
    ? "The passkey was not used: the browser was told to stop, or it waited too long. Try again, or use another way."
    : `The passkey did not work (${exception.name}). Try again, or use another way to sign in.`;
  notice.replaceChildren(text);
  document.querySelector("main h1").after(notice);
});
