// What pages gain with a script: they renew themselves. Everything works without it.
"use strict";

const main = document.getElementById("main");
const stale = document.getElementById("stale");
let renewed = new Date();

// What the page shows, without the parts that differ each time.
function content(element) {
  const copy = element.cloneNode(true);
  for (const each of copy.querySelectorAll("input[name=csrf_token]")) each.value = "";
  return copy.innerHTML;
}

// A field says something else than the page that came.
function isFilledIn() {
  const first = (select) => Math.max(0, [...select.options].findIndex((each) => each.defaultSelected));
  return [...main.querySelectorAll("input, textarea")].some((each) => each.value !== each.defaultValue)
    || [...main.querySelectorAll("input")].some((each) => each.checked !== each.defaultChecked)
    || [...main.querySelectorAll("select")].some((each) => each.selectedIndex !== first(each));
}

// Somebody is in the middle of something: nothing is put in their way.
function isBusy() {
  const active = document.activeElement;
  const isTyping = active && main.contains(active) && active !== main;
  const isOpen = main.querySelector("details[open]");
  return Boolean(isTyping || isOpen || isFilledIn() || String(getSelection()));
}

async function renew() {
  if (document.hidden || isBusy()) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Renews": "1" }, redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const other = page.getElementById("main");
    if (content(other) !== content(main)) main.replaceChildren(...other.childNodes);
    renewed = new Date();
    stale.hidden = true;
    if (!other.dataset.live) clearInterval(timer);
  } catch {
    stale.hidden = false;
    stale.querySelector("span").textContent = renewed.toLocaleTimeString();
  }
}

const timer = main.dataset.live && setInterval(renew, 1000 * Number(main.dataset.live));
