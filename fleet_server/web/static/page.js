// Says whether the page is live. htmx and hx-sse do everything else.
(() => {
  const link = document.getElementById("link");
  const say = (state, text) => {
    link.dataset.state = state;
    link.textContent = text;
  };
  document.addEventListener("htmx:sse:after:connection", () => say("live", "live"));
  document.addEventListener("htmx:sse:after:message", () => say("live", "live"));
  document.addEventListener("htmx:sse:error", () => say("lost", "reconnecting"));
  document.addEventListener("htmx:sse:close", () => say("lost", "not connected"));
  // A session that ended answers with the log-in page: go there.
  document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) location.assign("/login");
  });
})();
