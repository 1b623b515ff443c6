// What pages gain with a script: they renew themselves. Everything works without it.
"use strict";

const main = document.getElementById("main");
const stale = document.getElementById("stale");
const loaded = Date.now();
let renewed = new Date();

// What the page shows, without the parts that differ each time.
function content(element) {
  const copy = element.cloneNode(true);
  for (const each of copy.querySelectorAll("input[name=csrf_token]")) each.setAttribute("value", "");
  for (const each of copy.querySelectorAll("details")) each.removeAttribute("open");
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
  const isTyping = document.activeElement?.matches("main input, main textarea, main select");
  return Boolean(isTyping || isFilledIn() || String(getSelection()));
}

// What was said after a press of a button is to be read first.
function isJustSaid() {
  return Date.now() - loaded < 20_000 && main.querySelector("p.note[role=status]") !== null;
}

// What somebody has opened or closed stays so.
function keepOpen(other) {
  const before = [...main.querySelectorAll("details")];
  for (const each of other.querySelectorAll("details")) {
    const said = each.querySelector("summary").textContent;
    const same = before.find((one) => one.querySelector("summary").textContent === said);
    if (same) each.open = same.open;
    before.splice(before.indexOf(same), same ? 1 : 0);
  }
}

// Which of the elements of its kind has the keyboard.
function focused() {
  const active = document.activeElement;
  if (!active || active === main || !main.contains(active)) return { tag: "a", index: -1 };
  return { tag: active.tagName, index: [...main.querySelectorAll(active.tagName)].indexOf(active) };
}

async function renew() {
  if (document.hidden || isBusy() || isJustSaid()) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Renews": "1" }, redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const other = page.getElementById("main");
    if (content(other) !== content(main)) {
      const like = focused();
      keepOpen(other);
      main.replaceChildren(...other.childNodes);
      main.querySelectorAll(like.tag)[like.index]?.focus({ preventScroll: true });
    }
    renewed = new Date();
    stale.hidden = true;
    if (!other.dataset.live) clearInterval(timer);
  } catch {
    stale.hidden = false;
    stale.querySelector("span").textContent = renewed.toLocaleTimeString();
  }
}

const timer = main.dataset.live && setInterval(renew, 1000 * Number(main.dataset.live));

// On a phone the pages are a row that scrolls: this one is in view.
const here = document.querySelector(".side [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 16;
