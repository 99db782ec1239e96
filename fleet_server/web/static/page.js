// Says whether the page is live, and tries again when its very first connection fails.
// It is deferred, and so runs before htmx begins; htmx and hx-sse do everything else.
(() => {
  const link = document.getElementById("link");
  const live = document.getElementById("live");
  const say = (state, text) => {
    link.dataset.state = state;
    link.textContent = text;
  };
  document.addEventListener("htmx:sse:after:connection", () => say("live", "live"));
  document.addEventListener("htmx:sse:after:message", () => say("live", "live"));
  document.addEventListener("htmx:sse:close", () => say("lost", "not connected"));
  document.addEventListener("htmx:sse:error", (event) => {
    say("lost", "reconnecting");
    if (event.detail.status === 401) location.assign("/login"); // the session has ended
  });
  document.addEventListener("htmx:error", (event) => {
    if (event.target !== live) return;
    say("lost", "reconnecting");
    setTimeout(() => htmx.ajax("GET", live.getAttribute("hx-sse:connect"), { source: live }), 3000);
  });
})();
