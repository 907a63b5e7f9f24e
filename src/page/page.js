"use strict";
// Fetches the page again every five seconds and swaps its content; while it is hidden it rests.
async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/" + location.search, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
    document.title = fresh.dataset.title;
    document.getElementById("content").replaceWith(fresh);
  } catch {
    document.getElementById("lost").hidden = false;
  }
}
setInterval(refresh, 5000);
document.addEventListener("visibilitychange", refresh);
