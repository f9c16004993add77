// Times are sent in UTC. Here they become those of the reader's zone; UTC stays on hover.
"use strict";

const format = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
});
const formatSeconds = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

function showLocalTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const style = "seconds" in element.dataset ? formatSeconds : format;
    element.textContent = style.format(new Date(element.dateTime));
  }
}

document.documentElement.classList.add("has-scripts");
showLocalTimes(document);

// On a narrow screen the menu scrolls: the page that is open is seen in it.
const current = document.querySelector("nav [aria-current]");
if (current) current.closest("nav").scrollLeft = current.offsetLeft - 48;

// A page that nobody sees asks for nothing, and what is being typed into is not replaced.
document.body.addEventListener("htmx:beforeRequest", (event) => {
  const region = event.detail.elt;
  const isTyping =
    !region.hasAttribute("data-checked") && document.activeElement.matches("input, select, textarea");
  if (document.hidden || (isTyping && region.contains(document.activeElement))) {
    event.preventDefault();
  }
});

// Of what is replaced, the link that has the focus and what is folded out stay so.
let kept = null;

const listLinks = (region) => [...region.querySelectorAll("a[href], button, summary")];
const listDetails = (region) => [...region.querySelectorAll("details")];

document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (!event.detail.shouldSwap) return;
  const region = event.detail.target;
  const focused = document.activeElement;
  const isInside = region.contains(focused) && focused !== region;
  const same = listLinks(region).filter((link) => link.textContent === focused.textContent);
  kept = {
    id: region.id,
    text: isInside ? focused.textContent : null,
    place: same.indexOf(focused),
    open: listDetails(region).map((details) => details.open),
  };
});

// When what is shown was asked for last.
let refreshed = new Date();

document.body.addEventListener("htmx:afterSwap", () => {
  refreshed = new Date();
  showLocalTimes(document);
  const region = kept && document.getElementById(kept.id);
  if (!region) return;
  listDetails(region).forEach((details, index) => {
    if (kept.open[index]) details.open = true;
  });
  if (kept.text === null) return;
  const same = listLinks(region).filter((link) => link.textContent === kept.text);
  (same[kept.place] || same[0])?.focus({ preventScroll: true });
});

// What is shown stays when it cannot be asked for again, and says how old it is. The next answer
// takes the place of all of it, and so of the notice.
function sayOld(region) {
  const id = "not-refreshed";
  if (document.getElementById(id)) return;
  const notice = document.createElement("p");
  notice.id = id;
  notice.className = "note warn";
  notice.setAttribute("role", "status");
  notice.textContent = `Not refreshed since ${clock.format(refreshed)}`;
  region.prepend(notice);
}

document.body.addEventListener("htmx:responseError", (event) => {
  // Whoever is signed out by now is shown the sign-in.
  if (event.detail.xhr.status === 401) location.reload();
  else sayOld(event.detail.elt);
});
document.body.addEventListener("htmx:sendError", (event) => sayOld(event.detail.elt));
