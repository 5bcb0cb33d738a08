"use strict";
// The page's own behaviour: charts in the reader's colours, cells switched off, a table that sorts.
const specs = JSON.parse(document.getElementById("charts").textContent);
const views = {};
const dark = matchMedia("(prefers-color-scheme: dark)");
const chosen = {off: []};

function config() {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue(name).trim();
  const font = "system-ui, sans-serif";
  const axis = {labelColor: colour("--soft"), titleColor: colour("--soft"), gridColor: colour("--line"),
    domainColor: colour("--line"), tickColor: colour("--line"), titleFontWeight: "normal"};
  return {background: "transparent", font, view: {stroke: null}, axis,
    axisY: {labelLimit: Math.min(300, document.body.clientWidth * 0.44)},
    legend: {labelColor: colour("--ink"), titleColor: colour("--soft"), labelLimit: 240},
    rule: {color: colour("--soft")}, rect: {color: colour("--soft")},
    mark: {color: colour("--accent")}};
}

async function draw() {
  const options = {config: config(), renderer: "svg", mode: "vega-lite", tooltip: {theme: dark.matches ? "dark" : "light"},
    actions: {export: true, source: false, compiled: false, editor: false}};
  for (const [name, spec] of Object.entries(specs)) {
    const place = document.getElementById("chart-" + name);
    if (!place) continue;
    if (views[name]) views[name].finalize();
    views[name] = await vegaEmbed(place, spec, options);
    for (const [signal, value] of Object.entries(chosen)) set(name, signal, value);
  }
  for (const control of controls) tellControl(control);
  document.documentElement.dataset.drawn = "yes";
}

function set(name, signal, value) {
  const view = views[name] && views[name].view;
  const has = ((specs[name] || {}).params || []).some(param => param.name === signal);
  if (view && has) view.signal(signal, value).runAsync();
}

function choose(signal, value) {
  chosen[signal] = value;
  for (const name of Object.keys(specs)) set(name, signal, value);
}

const controls = document.querySelectorAll("select[data-signal]");
function tellControl({dataset, value}) {
  choose(dataset.signal, isNaN(value) ? value : Number(value));
}
for (const control of controls) control.addEventListener("change", () => tellControl(control));

const boxes = [...document.querySelectorAll("input[data-cell]")];
const tellCells = () => choose("off", boxes.filter(box => !box.checked).map(box => box.dataset.cell));
for (const box of boxes) box.addEventListener("change", tellCells);
for (const button of document.querySelectorAll("button[data-all]"))
  button.addEventListener("click", () => {
    for (const box of boxes) box.checked = button.dataset.all === "on";
    tellCells();
  });

// Numbers are read as they are shown: 1.15M, 3/3, 1.02x, -0.1 .. +0.2; what has none comes last.
const UNITS = {k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15};
function number(text) {
  const found = /^([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([kMGTP]?)/.exec(text);
  return found ? Number(found[1]) * (UNITS[found[2]] || 1) : NaN;
}

function sort(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row, place) => {
    const text = row.cells[column].textContent.trim();
    return {row, place, text, value: number(text)};
  });
  const numeric = rows.some(entry => !isNaN(entry.value));
  const sign = ascending ? 1 : -1;
  rows.sort((a, b) => {
    if (!numeric) return sign * a.text.localeCompare(b.text) || a.place - b.place;
    if (isNaN(a.value) || isNaN(b.value)) return isNaN(a.value) - isNaN(b.value);
    return sign * (a.value - b.value) || a.place - b.place;
  });
  body.append(...rows.map(entry => entry.row));
}

for (const table of document.querySelectorAll("table.sortable"))
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });

async function copy(text, source) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // a page of a file may not, in some browsers
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
  }
}

for (const button of document.querySelectorAll("button.copy"))
  button.addEventListener("click", async () => {
    const source = button.parentElement.querySelector("code");
    await copy(source.textContent, source);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });

function reveal() {  // a row's link leads to its cell, opened
  const place = document.getElementById(location.hash.slice(1));
  if (place && place.tagName === "DETAILS") place.open = true;
}
addEventListener("hashchange", reveal);
reveal();
dark.addEventListener("change", draw);
draw();
