// Times are sent in UTC. Here they become those of the reader's zone; UTC stays on hover.
"use strict";

const format = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
});

function showLocalTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    element.textContent = format.format(new Date(element.dateTime));
  }
}

document.documentElement.classList.add("has-scripts");
showLocalTimes(document);

// On a narrow screen the menu scrolls: the page that is open is seen in it.
const current = document.querySelector("nav [aria-current]");
if (current) current.closest("nav").scrollLeft = current.offsetLeft - 48;

document.body.addEventListener("htmx:afterSwap", () => showLocalTimes(document));

// A page that nobody sees asks for nothing, and what is being typed into is not replaced.
document.body.addEventListener("htmx:beforeRequest", (event) => {
  const source = event.detail.elt;
  if (document.hidden || source.contains(document.activeElement)) event.preventDefault();
});
