"use strict";
// Joins the controls of the page to bokeh's plots and to the tables; every text goes in as text.
const data = JSON.parse(document.getElementById("data").textContent);
const drawn = new Map();

async function library() {
  const bytes = Uint8Array.from(atob(document.getElementById("library").textContent), one => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

const ready = library().catch(error => {
  document.getElementById("undrawn").hidden = false;
  throw error;
});

async function draw(panel) {
  await ready;
  for (const place of panel.querySelectorAll(".plot")) {
    if (drawn.has(place.id)) continue;
    drawn.set(place.id, null);
    const [view] = await Bokeh.embed.embed_item(data.plots[place.id]);
    drawn.set(place.id, view.model);
    apply(panel, view.model);
  }
}

function apply(panel, plot) {
  const off = new Set([...panel.querySelectorAll("[data-kernel]:not(:checked)")].map(box => box.dataset.kernel));
  for (const one of plot.renderers) one.visible = !one.tags.some(kernel => off.has(kernel));
  for (const box of panel.querySelectorAll("[data-axis]")) {
    const axis = box.dataset.axis, kind = box.checked ? "log" : "linear", [tags] = plot.tags;
    if (!tags.switched[axis]) continue;
    const scale = box.checked ? "LogScale" : "LinearScale", ticker = box.checked ? "LogTicker" : "BasicTicker";
    if (plot[axis + "_scale"].type === scale) continue;
    const [start, end] = tags[axis][kind];
    plot[axis + "_scale"] = new (Bokeh.Models.get(scale))();
    plot[axis + "_range"].setv({start, end, reset_start: start, reset_end: end});
    for (const one of axis === "x" ? plot.below : plot.left)
      if (one.ticker.type !== "FixedTicker") one.ticker = new (Bokeh.Models.get(ticker))();
  }
}

function applyAll(panel) {
  for (const place of panel.querySelectorAll(".plot")) if (drawn.get(place.id)) apply(panel, drawn.get(place.id));
}

for (const panel of document.querySelectorAll(".panel")) {
  const radio = document.getElementById(panel.previousElementSibling.htmlFor);
  radio.addEventListener("change", () => draw(panel));
  if (radio.checked) draw(panel);
  panel.addEventListener("change", () => applyAll(panel));
  for (const button of panel.querySelectorAll("[data-all]"))
    button.addEventListener("click", () => {
      for (const box of panel.querySelectorAll("[data-kernel]")) box.checked = Boolean(button.dataset.all);
      applyAll(panel);
    });
}

const key = cell => cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
}

for (const grid of document.querySelectorAll(".grid")) {
  const body = grid.querySelector("tbody"), rows = [...body.rows], heads = [...grid.querySelectorAll("th")];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    for (const one of heads) one.ariaSort = "none";
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    body.append(...rows.sort((a, b) => sign * compare(key(a.cells[column]), key(b.cells[column]))));
  }));
  grid.querySelector("input").addEventListener("input", event => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    grid.querySelector("output").textContent = rows.filter(row => !row.hidden).length + " of " + rows.length + " rows";
  });
}

function show(index) {
  const dialog = document.getElementById("record"), body = dialog.querySelector("tbody"), record = data.records[index];
  body.replaceChildren();
  data.fields.forEach((field, place) => {
    if (record[place] === null || record[place] === undefined) return;
    const row = body.insertRow(), head = document.createElement("th");
    head.scope = "row";
    head.textContent = field;
    row.append(head);
    const value = record[place];
    row.insertCell().textContent = typeof value === "object" ? JSON.stringify(value) : value;
  });
  document.getElementById("record-title").textContent = record[data.fields.indexOf("key")] ?? "Record";
  dialog.showModal();
}

document.addEventListener("record", event => show(event.detail));
document.addEventListener("click", event => {
  const button = event.target.closest("[data-record]");
  if (button) show(Number(button.dataset.record));
});
