// Shows errors of allauth's passkey scripts on the page; the scripts only log them to the console.
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
    ? "The passkey prompt was cancelled or timed out. Try again, or sign in another way."
    : `The passkey did not work (${exception.name}). Try again, or sign in another way.`;
  notice.replaceChildren(text);
  document.querySelector("main h1").after(notice);
});
