"use strict";
// Table text only ever reaches the page through textContent, or through `safe` into plotly.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const make = (tag, text, parent) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
};
// plotly reads <b>, <a href> and the like as markup wherever it draws text
const safe = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const unique = list => [...new Set(list)].sort((a, b) => a - b);
const size = n => n >= 1e9 ? (n / 1e9).toPrecision(3) + "B" : n >= 1e6 ? (n / 1e6).toPrecision(3) + "M" : n.toPrecision(4);
const dark = matchMedia("(prefers-color-scheme: dark)");
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
// Okabe and Ito's palette
const HUES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
// viridis, whose ends are kept off the paper in light and dark
const VIRIDIS = [[72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];
const shade = (i, n) => {
  const span = dark.matches ? [2, 8] : [0, 6];
  const at = n > 1 ? span[0] + i / (n - 1) * (span[1] - span[0]) : span[0];
  const k = Math.min(Math.floor(at), 7), t = at - k;
  return "rgb(" + VIRIDIS[k].map((c, j) => Math.round(c + t * (VIRIDIS[k + 1][j] - c))).join(",") + ")";
};
const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
const line = () => getComputedStyle(document.documentElement).getPropertyValue("--line").trim();

function plot(div, traces, layout) {
  const axis = { gridcolor: line(), zerolinecolor: line(), automargin: true };
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), size: 12 },
    margin: { l: 50, r: 10, t: 30, b: 40 }, showlegend: false, hovermode: "closest", dragmode: false,
    ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
  div.setAttribute("role", "img");
  div.setAttribute("aria-label", [layout.title?.text, whole.xaxis.title?.text, whole.yaxis.title?.text].filter(Boolean).join("; "));
  return Plotly.react(div, traces, whole, { responsive: true, displayModeBar: false, displaylogo: false });
}
// sizes as 30M, 100M, 300M: a few round numbers whatever the span
const rounds = [...Array(10).keys()].flatMap(k => [1, 3].map(n => n * 10 ** (k + 3)));
const sizes = { type: "log", title: { text: "unique parameters" }, tickvals: rounds, tickangle: 0,
  ticktext: rounds.map(n => n >= 1e9 ? n / 1e9 + "B" : n >= 1e6 ? n / 1e6 + "M" : n / 1e3 + "k") };
// all of a grid's cells stand before the first is drawn, since each takes the width that it finds
function cells(holder, n) {
  while (holder.children.length < n) make("div", undefined, holder).className = "plot";
  return [...holder.children];
}

// L = E + (A·N^−α + B·D^−β)^γ, N = N_once + m(r)·N_rec; γ = 1 is the additive law
function loss(law, p, curve, i) {
  const m = curve.r === 1 ? 1 : p.phi === undefined ? law.multiplicity[curve.r] : curve.r ** p.phi;
  const n = curve.once[i] + m * curve.rec[i];
  return p.E + (p.A * n ** -p.alpha + p.B * curve.tokens[i] ** -p.beta) ** (p.gamma ?? 1);
}
const drawn = (law, p, curve) => curve.size.map((_, i) => loss(law, p, curve, i));

const budgets = unique(data.laws.flatMap(l => l.curves.map(c => c.budget)));
const set = data.laws.map(l => ({ phi: l.params.phi, refit: null }));

function panels(law, at, holder) {
  const levels = unique(law.runs.r);
  const losses = law.runs.loss, low = Math.min(...losses), high = Math.max(...losses), pad = (high - low) * .08;
  const divs = cells(holder, levels.length);
  levels.forEach((r, k) => {
    const traces = [];
    budgets.forEach((b, i) => {
      const colour = shade(i, budgets.length);
      const curve = law.curves.find(c => c.r === r && c.budget === b);
      if (curve) {
        const p = { ...law.params }; if (p.phi !== undefined) p.phi = set[at].phi;
        traces.push({ x: curve.size, y: drawn(law, p, curve), mode: "lines", line: { color: colour, width: 2 }, hoverinfo: "skip" });
        if (set[at].refit) traces.push({ x: curve.size, y: drawn(law, set[at].refit, curve), mode: "lines", line: { color: colour, width: 1.5, dash: "dash" }, hoverinfo: "skip" });
      }
      const rows = law.runs.r.map((_, j) => j).filter(j => law.runs.r[j] === r && law.runs.budget && law.runs.budget[j] === b);
      if (rows.length) traces.push({
        x: rows.map(j => law.runs.size[j]), y: rows.map(j => losses[j]), mode: "markers", hoverinfo: "text",
        marker: { color: colour, size: 7, symbol: SYMBOLS[i % SYMBOLS.length] },
        hovertext: rows.map(j => `${safe(law.runs.id[j])}<br>loss ${losses[j].toFixed(4)}, ${size(law.runs.size[j])} parameters<br>${b.toPrecision(3)} FLOPs`),
      });
    });
    const minima = law.minima.filter(m => m.r === r);
    traces.push({ x: minima.map(m => m.size), y: minima.map(m => m.loss), mode: "markers", hoverinfo: "text",
      hovertext: minima.map(m => `measured minimum<br>${size(m.size)} parameters, loss ${m.loss.toFixed(4)}`),
      marker: { symbol: "star", size: 12, color: "#D55E00", line: { color: ink(), width: .8 } } });
    plot(divs[k], traces, { title: { text: r === 1 ? "unlooped (r = 1)" : `r = ${r}`, font: { size: 13 } }, xaxis: sizes, yaxis: { range: [low - pad, high + pad], title: { text: k ? "" : "loss, nats" } } });
  });
}

function curves() {
  byId("budgets").replaceChildren();
  budgets.forEach((b, i) => {
    const item = make("span", undefined, byId("budgets"));
    make("i", undefined, item).style.background = shade(i, budgets.length);
    item.append(`${b.toPrecision(3)} FLOPs`);
  });
  data.laws.forEach((law, at) => {
    let holder = byId(`law-${at}`);
    if (!holder) {
      make("h3", law.recipe, byId("curves"));
      holder = make("div", undefined, byId("curves"));
      holder.id = `law-${at}`; holder.className = "grid";
    }
    panels(law, at, holder);
  });
}

function slide() {
  const at = Number(byId("recipe").value), law = data.laws[at], k = Number(byId("phi").value);
  set[at] = { phi: law.slider[k], refit: law.refits[k] };
  readings();
  panels(law, at, byId(`law-${at}`));
}
const GREEK = { alpha: "α", beta: "β", gamma: "γ" };
function readings() {
  const at = Number(byId("recipe").value), law = data.laws[at], refit = set[at].refit;
  const text = p => ["E", "A", "alpha", "B", "beta", "gamma"].filter(n => n in p).map(n => `${GREEK[n] ?? n} ${p[n].toPrecision(4)}`).join(", ");
  byId("phi-value").textContent = set[at].phi.toFixed(3);
  byId("phi").setAttribute("aria-valuetext", set[at].phi.toFixed(3));
  byId("readings").textContent = refit ? `Held: ${text(law.params)}. Refit: ${text(refit)}.` : `The fit: ${text(law.params)}.`;
}
function choose() {
  const at = Number(byId("recipe").value), law = data.laws[at], phi = byId("phi");
  const near = law.slider.reduce((best, v, i) => Math.abs(v - set[at].phi) < Math.abs(law.slider[best] - set[at].phi) ? i : best, 0);
  phi.min = 0; phi.max = law.slider.length - 1; phi.step = 1; phi.value = near;
  readings();
}

function profile() {
  const p = data.profile;
  if (!p) return;
  byId("s-profile").hidden = false;
  const rise = p.objective.map(f => 100 * (f / p.minimum - 1)), top = 100 * (p.threshold / p.minimum - 1);
  const vertical = (x, colour) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: colour, width: 1.5 } });
  const shapes = [vertical(p.phi, ink()), { type: "line", xref: "paper", x0: 0, x1: 1, y0: top, y1: top, line: { color: ink(), dash: "dot", width: 1 } }];
  const ends = data.laws[0].phi_ci95;
  if (ends) shapes.push({ type: "rect", xref: "x", yref: "paper", x0: ends[0], x1: ends[1], y0: 0, y1: 1, fillcolor: "#E69F00", opacity: .25, line: { width: 0 } });
  plot(byId("profile"), [{ x: p.values, y: rise, mode: "lines", line: { color: dark.matches ? "#56B4E9" : "#0072B2", width: 2 } }],
    { shapes, title: { text: "band: 95% interval; dotted: the profile's own threshold", font: { size: 12 } }, xaxis: { title: { text: "φ" } }, yaxis: { title: { text: "objective above minimum, %" }, range: [0, 6 * top] } });
}

function forest() {
  if (!data.forest.length) return;
  byId("s-forest").hidden = false;
  byId("forest-of").textContent = data.forest_of;
  [...new Set(data.forest.map(f => f.recipe))].forEach((recipe, k) => {
    const rows = data.forest.filter(f => f.recipe === recipe && f.value !== null).reverse();
    let div = byId(`forest-${k}`);
    if (!div) { make("h3", recipe, byId("forest")); div = make("div", undefined, byId("forest")); div.id = `forest-${k}`; }
    div.style.height = `${90 + 22 * rows.length}px`;
    plot(div, [{ x: rows.map(f => f.value), y: rows.map(f => safe(f.label)), mode: "markers", marker: { color: HUES[1], size: 8 },
      error_x: { type: "data", symmetric: false, array: rows.map(f => f.ci95 ? f.ci95[1] - f.value : 0), arrayminus: rows.map(f => f.ci95 ? f.value - f.ci95[0] : 0), color: HUES[1] } }],
      { xaxis: { title: { text: `${data.forest_of}, 95% intervals` } }, yaxis: { tickfont: { size: 11 }, dtick: 1 } });
  });
}

function channels() {
  if (!data.channels.length) return;
  byId("s-channels").hidden = false;
  const kinds = { token_budget: ["token budget", HUES[5], ""], capacity: ["capacity (φ)", HUES[4], "/"], other: ["rest of the law", HUES[3], "."] };
  const keys = [...new Set(data.channels.map(c => JSON.stringify([c.recipe, c.r])))];
  const divs = cells(byId("channels"), keys.length);
  keys.forEach((key, k) => {
    const [recipe, r] = JSON.parse(key), rows = data.channels.filter(c => c.recipe === recipe && c.r === r);
    plot(divs[k], Object.entries(kinds).map(([name, [label, colour, hatch]]) => ({
      type: "bar", name: label, x: rows.map(c => c.budget.toPrecision(3)), y: rows.map(c => c[name]), marker: { color: colour, pattern: { shape: hatch } },
      hoverinfo: "text", textposition: "none",
      hovertext: rows.map(c => `${label} ${c[name].toFixed(4)}` + (c.ci95[name] ? ` [${c.ci95[name].map(x => x.toFixed(4)).join(", ")}]` : "")),
    })), { barmode: "relative", showlegend: true, legend: { orientation: "h", y: -.3, font: { size: 10 } }, title: { text: `${safe(recipe)}, r = ${r}`, font: { size: 13 } }, xaxis: { type: "category" }, yaxis: {} });
  });
}

function residuals() {
  const divs = cells(byId("residuals"), data.laws.length);
  data.laws.forEach((law, k) => {
    plot(divs[k], unique(law.runs.r).map((r, i) => {
      const rows = law.runs.r.map((_, j) => j).filter(j => law.runs.r[j] === r);
      return { x: rows.map(j => law.runs.size[j]), y: rows.map(j => law.runs.left[j]), mode: "markers", name: `r = ${r}`, hoverinfo: "text",
        hovertext: rows.map(j => `${safe(law.runs.id[j])}<br>${law.runs.left[j].toFixed(4)} nats`), marker: { color: HUES[i % HUES.length], symbol: SYMBOLS[i % SYMBOLS.length], size: 7 } };
    }), { title: { text: safe(law.recipe), font: { size: 13 } }, showlegend: true, legend: { orientation: "h", y: -.3 }, xaxis: sizes });
  });
}

// Parameters and FLOPs: arXiv 2604.21106 and its released code, as in isodepth's accounting.py
function worth() {
  const read = id => Number(byId(id).value), list = byId("worth"), p = data.laws[0].params;
  const d = read("c-width"), r = read("c-r"), depth = read("c-depth"), V = read("c-vocab"), T = read("c-tokens");
  list.replaceChildren();
  const say = (name, text) => { make("dt", name, list); make("dd", text, list); };
  if (![d, r, depth, V, T].every(x => Number.isInteger(x) && x >= 1) || depth < 5 || (depth - 4) % r) {
    say("Not possible", "every field is a whole number of at least 1, and r divides depth − 4"); return;
  }
  const b = 12 * d * d + 2 * d, blocks = (depth - 4) / r, inject = r === 1 ? 0 : 2 * d * d;
  const once = 4 * b + 3 * d, rec = blocks * b;
  const flops = 6 * (4 * b + V * d) + 6 * r * (rec + inject) + 12 * 4 * d * T + 12 * r * blocks * d * T;
  const where = data.laws[0].counting;
  const equal = phi => once + (where === "once" ? inject : 0) + r ** phi * (rec + (where === "rec" ? inject : 0));
  // the unlooped width w of the same cost: 6(depth(12w² + 2w) + V·w) + 12·depth·w·T = flops
  const q = 72 * depth, h = 12 * depth + 6 * V + 12 * depth * T, w = (-h + Math.sqrt(h * h + 4 * q * flops)) / (2 * q);
  const ends = data.laws[0].phi_ci95;
  say("Unique parameters", size(once + rec + inject));
  say("Unlooped size of equal loss", size(equal(p.phi)) + (ends ? ` [${size(equal(ends[0]))}, ${size(equal(ends[1]))}], from the interval of φ` : ""));
  say("Unlooped size of equal training cost", size(depth * (12 * w * w + 2 * w) + 3 * w));
  say("Training FLOPs per token", flops.toPrecision(4));
}

const shown = { column: 0, down: false, all: false };
function table() {
  const { columns, rows } = data.runs, words = byId("search").value.toLowerCase();
  const found = rows.filter(row => row.some(x => String(x ?? "").toLowerCase().includes(words)));
  const value = row => row[shown.column];
  found.sort((a, b) => (typeof value(a) === "number" && typeof value(b) === "number" ? value(a) - value(b) : String(value(a) ?? "").localeCompare(String(value(b) ?? ""))) * (shown.down ? -1 : 1));
  const body = byId("runs").tBodies[0], head = byId("runs").tHead, line = document.createElement("tr");
  columns.forEach((name, i) => {
    const cell = make("th", undefined, line), button = make("button", name + (i === shown.column ? (shown.down ? " ↓" : " ↑") : ""), cell);
    cell.setAttribute("aria-sort", i === shown.column ? (shown.down ? "descending" : "ascending") : "none");
    button.type = "button";
    button.onclick = () => { shown.down = shown.column === i && !shown.down; shown.column = i; table(); head.querySelectorAll("button")[i].focus(); };
  });
  head.replaceChildren(line);
  body.replaceChildren(...(shown.all ? found : found.slice(0, 100)).map(row => {
    const made = document.createElement("tr");
    row.forEach(x => make("td", typeof x === "number" ? (Number.isInteger(x) && Math.abs(x) < 1e6 ? x : x.toPrecision(5)) : x ?? "", made));
    return made;
  }));
  byId("count").textContent = `${found.length} of ${rows.length} runs`;
  byId("more").hidden = shown.all || found.length <= 100;
}

function draw() { curves(); profile(); forest(); channels(); residuals(); }

byId("title").textContent = data.title;
byId("formula").textContent = data.laws[0].formula;
Object.entries(data.lists).forEach(([title, said]) => {
  if (!said.length) return;
  const box = make("details", undefined, byId("lists"));
  make("summary", `${title} (${said.length})`, box);
  const list = make("ul", undefined, box);
  said.forEach(s => make("li", s, list));
});
Object.entries(data.made).forEach(([name, text]) => { make("dt", name, byId("made")); make("dd", text, byId("made")); });
data.laws.forEach((law, i) => { if (law.slider.length) make("option", law.recipe, byId("recipe")).value = i; });
if (byId("recipe").options.length) {
  byId("held").hidden = false;
  choose();
  byId("recipe").onchange = choose;
  byId("phi").oninput = slide;
  byId("reset").onclick = () => { const at = Number(byId("recipe").value); set[at] = { phi: data.laws[at].params.phi, refit: null }; choose(); panels(data.laws[at], at, byId(`law-${at}`)); };
}
if (data.laws[0].slider.length && data.laws[0].counting !== "regressed") {
  byId("s-calculator").hidden = false;
  byId("calculator").oninput = worth;
  byId("calculator").onsubmit = event => event.preventDefault();
  worth();
}
byId("search").oninput = table;
byId("more").onclick = () => { shown.all = true; table(); };
byId("copy").onclick = () => {
  const area = make("textarea", data.made.BibTeX, document.body);
  area.select();
  byId("copied").textContent = document.execCommand("copy") ? "copied" : "select it above";
  area.remove(); byId("copy").focus();
};
table();
draw();
dark.addEventListener("change", draw);
