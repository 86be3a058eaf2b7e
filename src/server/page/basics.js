"use strict";
// ---- elements, numbers, colours, the tip and the theme. Text is only ever set as text.
const byId = id => document.getElementById(id);

window.addEventListener("error", event => {
  const note = html("p", {class: "broken", role: "alert"}, "This page's script failed: " + event.message);
  document.querySelector("main").prepend(note);
});

function fill(element, attributes, children) {
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  element.append(...children);
  return element;
}
const html = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

// Changes the text only when it is another one: what is marked or read aloud stays as it is.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function short(value, digits = 3) {
  const size = Math.abs(value);
  for (const [limit, divisor, unit] of [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]]) {
    if (size >= limit) return +(value / divisor).toPrecision(digits) + unit;
  }
  return size >= 100 ? String(Math.round(value)) : String(+value.toPrecision(digits));
}
const grouped = value => Math.round(value).toLocaleString("en-US");
const percent = share => (share > 0 && share < 0.1 ? (100 * share).toFixed(1) : Math.round(100 * share)) + " %";
const plural = (count, word) => grouped(count) + " " + word + (count === 1 ? "" : "s");

function duration(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return (seconds / 3600).toFixed(1) + " h";
  return Math.round(seconds / 86400) + " days";
}

// The next of 1, 2, 2.5, 5, 10 … at or above `value`.
function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = Math.pow(10, Math.floor(Math.log10(value)));
  for (const step of [1, 2, 2.5, 5]) if (value <= step * power * 1.0000001) return step * power;
  return 10 * power;
}

// A request keeps its colour as long as it is shown: the first one that nobody has.
const kNumColors = 7;
const colorOf = new Map();
function assignColors(ids) {
  for (const id of colorOf.keys()) if (!ids.includes(id)) colorOf.delete(id);
  for (const id of ids) {
    if (colorOf.has(id)) continue;
    const counts = Array(kNumColors).fill(0);
    for (const color of colorOf.values()) ++counts[color];
    colorOf.set(id, counts.indexOf(Math.min(...counts)));
  }
}
const requestColor = id => "var(--s" + (colorOf.get(id) || 0) + ")";

// ---- what the pointer is on
const tip = byId("tip");
function showTip(text, event) {
  setText(tip, text);
  tip.classList.add("on");
  const box = tip.getBoundingClientRect();
  const right = event.clientX + 16 + box.width < innerWidth;
  const below = event.clientY + 18 + box.height < innerHeight;
  tip.style.left = Math.max(4, right ? event.clientX + 16 : event.clientX - 16 - box.width) + "px";
  tip.style.top = Math.max(4, below ? event.clientY + 18 : event.clientY - 12 - box.height) + "px";
}
const hideTip = () => tip.classList.remove("on");

// ---- theme: that of the system, or the one that was chosen
const darkQuery = matchMedia("(prefers-color-scheme: dark)");
function store(area, key, value) {
  try {
    if (value === undefined) return area.getItem(key);
    area.setItem(key, value);
  } catch (ignored) { /* storage may be forbidden; then nothing is remembered */ }
  return null;
}
function applyTheme() {
  const chosen = store(localStorage, "nanocp-theme");
  const dark = chosen ? chosen === "dark" : darkQuery.matches;
  const root = document.documentElement;
  if (chosen) root.dataset.theme = chosen;
  root.toggleAttribute("data-dark", dark);
  setText(byId("theme"), dark ? "Light" : "Dark");
  byId("theme").setAttribute("aria-label", "Use the " + (dark ? "light" : "dark") + " theme");
}
byId("theme").addEventListener("click", () => {
  store(localStorage, "nanocp-theme", document.documentElement.hasAttribute("data-dark") ? "light" : "dark");
  applyTheme();
});
darkQuery.addEventListener("change", applyTheme);
applyTheme();
