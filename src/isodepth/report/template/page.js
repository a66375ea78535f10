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
// plotly reads <b>, <a href> and the like as markup wherever it draws text, and $…$ as mathematics
const safe = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");
const unique = list => [...new Set(list)].sort((a, b) => a - b);
const size = n => n >= 1e9 ? (n / 1e9).toPrecision(3) + "B" : n >= 1e6 ? (n / 1e6).toPrecision(3) + "M" : n >= 1e3 ? (n / 1e3).toPrecision(3) + "k" : n.toPrecision(3);
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const isDark = () => dark.matches && !root.classList.contains("printing");
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
const GLYPHS = ["●", "■", "▲", "◆", "▼", "✚", "✖"]; // the same, in words' legends
// Okabe and Ito's palette
const HUES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
// viridis, whose ends are kept off the paper in light and dark
const VIRIDIS = [[72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];
const shade = (i, n) => {
  const span = isDark() ? [2, 8] : [0, 5];
  const at = n > 1 ? span[0] + i / (n - 1) * (span[1] - span[0]) : span[0];
  const k = Math.min(Math.floor(at), 7), t = at - k;
  return "rgb(" + VIRIDIS[k].map((c, j) => Math.round(c + t * (VIRIDIS[k + 1][j] - c))).join(",") + ")";
};
// L = E + A·N_once^(−α) with its sub- and superscripts
const formula = (text, parent) => text.split(/(_[A-Za-z]+|\^\([^)]*\)|\^[^\s·,)]+)/).forEach(part => {
  if (part[0] === "_") make("sub", part.slice(1), parent);
  else if (part[0] === "^") make("sup", part.replace(/^\^\(?|\)$/g, ""), parent);
  else parent.append(part);
});
// an interval is broken nowhere inside
const kept = text => String(text).replace(/, (?=[^[]*\])/g, ",\u00a0");
const ink = () => getComputedStyle(root).getPropertyValue("--ink").trim();
const line = () => getComputedStyle(root).getPropertyValue("--line").trim();

function plot(div, traces, layout) {
  const axis = { gridcolor: line(), zerolinecolor: line(), automargin: true };
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), size: 12 },
    width: div.clientWidth, margin: { l: 50, r: 10, t: 30, b: 40 }, showlegend: false, hovermode: "closest", dragmode: false,
    ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis, title: { standoff: 6, ...layout.yaxis?.title } },
  };
  div.setAttribute("role", "img");
  div.setAttribute("aria-label", [layout.title?.text, whole.xaxis.title?.text, whole.yaxis.title?.text].filter(Boolean).join("; "));
  return Plotly.react(div, traces, whole, { responsive: true, displayModeBar: false, displaylogo: false });
}
// sizes as 30M, 100M, 300M: a few round numbers whatever the span
const rounds = [...Array(10).keys()].flatMap(k => [1, 3].map(n => n * 10 ** (k + 3)));
const sizes = { type: "log", title: { text: "unique parameters" }, tickvals: rounds, tickangle: 0,
  ticktext: rounds.map(n => n >= 1e9 ? n / 1e9 + "B" : n >= 1e6 ? n / 1e6 + "M" : n / 1e3 + "k") };

function grid(parent, title, id) {
  make("h3", title, byId(parent));
  const holder = make("div", undefined, byId(parent));
  holder.id = id; holder.className = "grid";
}
// Every plot's place stands before the first is drawn, since each takes the width that it finds.
const plots = [];
function place(holder, draw, height) {
  const div = make("div", undefined, byId(holder));
  div.className = "plot";
  if (height) div.style.height = `${height}px`;
  plots.push({ div, draw });
}
const show = id => { byId(id).hidden = false; };

// L = E + (A·N^−α + B·D^−β)^γ, N = N_once + m(r)·N_rec; γ = 1 is the additive law
function loss(law, p, curve, i) {
  const m = curve.r === 1 ? 1 : p.phi === undefined ? law.multiplicity[curve.r] : curve.r ** p.phi;
  const n = curve.once[i] + m * curve.rec[i];
  return p.E + (p.A * n ** -p.alpha + p.B * curve.tokens[i] ** -p.beta) ** (p.gamma ?? 1);
}
const drawn = (law, p, curve) => curve.size.map((_, i) => loss(law, p, curve, i));

const budgets = unique(data.laws.flatMap(l => l.curves.map(c => c.budget)));
const set = data.laws.map(l => ({ phi: l.params.phi, refit: null }));

function panel(div, law, at, r, first) {
  const losses = law.runs.loss, low = Math.min(...losses), high = Math.max(...losses), pad = (high - low) * .08;
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
    marker: { symbol: "star-open", size: 12, color: "#D55E00", line: { width: 1.6 } } });
  plot(div, traces, { title: { text: r === 1 ? "unlooped (r = 1)" : `r = ${r}`, font: { size: 13 } }, xaxis: sizes, yaxis: { range: [low - pad, high + pad], title: { text: first ? "loss, nats" : "" } } });
}

function legend() {
  byId("budgets").replaceChildren();
  budgets.forEach((b, i) => {
    const item = make("span", undefined, byId("budgets"));
    make("b", GLYPHS[i % GLYPHS.length], item).style.color = shade(i, budgets.length);
    item.append(` ${b.toPrecision(3)} FLOPs`);
  });
  const star = make("span", undefined, byId("budgets"));
  make("b", "☆", star).style.color = "#D55E00";
  star.append(" measured minimum");
}
function curves() {
  if (!budgets.length) return;
  show("s-curves");
  legend();
  data.laws.forEach((law, at) => {
    grid("curves", law.recipe, `law-${at}`);
    unique(law.runs.r).forEach((r, k) => place(`law-${at}`, div => panel(div, law, at, r, k === 0)));
  });
}
const redraw = at => plots.filter(p => p.div.parentElement.id === `law-${at}`).forEach(p => p.draw(p.div));

function slide() {
  const at = Number(byId("recipe").value), law = data.laws[at], k = Number(byId("phi").value);
  set[at] = { phi: law.slider[k], refit: law.refits[k] };
  readings();
  redraw(at);
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

const vertical = (x, colour, dash) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: colour, width: 1.5, dash } });
function profiles() {
  data.laws.filter(law => law.profile).forEach(law => {
    show("s-profile");
    place("profile", div => {
      const p = law.profile, ends = law.phi_ci95, phi = law.params.phi;
      const rise = p.objective.map(f => 100 * (f / p.minimum - 1)), top = 100 * (p.threshold / p.minimum - 1);
      const shapes = [vertical(phi, ink()), { type: "line", xref: "paper", x0: 0, x1: 1, y0: top, y1: top, line: { color: ink(), dash: "dot", width: 1 } }];
      if (ends) shapes.push({ type: "rect", xref: "x", yref: "paper", x0: ends[0], x1: ends[1], y0: 0, y1: 1, fillcolor: "#E69F00", opacity: .25, layer: "below", line: { width: 0 } });
      const told = `φ = ${phi.toFixed(3)}` + (ends ? ` [${ends[0].toFixed(3)}, ${ends[1].toFixed(3)}]` : ", no interval");
      plot(div, [{ x: p.values, y: rise, mode: "lines", line: { color: isDark() ? "#56B4E9" : "#0072B2", width: 2 }, hovertemplate: "φ %{x:.3f}: +%{y:.2f}%<extra></extra>" }],
        { shapes, title: { text: `${safe(law.recipe)}<br>${told}`, font: { size: 13 } }, margin: { l: 50, r: 10, t: 50, b: 40 }, xaxis: { title: { text: "φ" } }, yaxis: { title: { text: "objective above minimum, %" }, range: [0, 6 * top] } });
    });
  });
}

function forests() {
  data.forests.filter(f => f.rows.length).forEach(f => {
    show("s-forest");
    const rows = f.rows.filter(row => row.value !== null).reverse();
    place("forest", div => {
      const ends = k => rows.map(row => row.ci95 ? Math.abs(row.ci95[k] - row.value) : 0);
      const colours = rows.map((_, i) => i === rows.length - 1 ? "#D55E00" : isDark() ? "#56B4E9" : "#0072B2");
      // one trace a colour, as the colour of an error bar is its trace's
      const traces = [...new Set(colours)].map(colour => {
        const at = rows.map((_, i) => i).filter(i => colours[i] === colour);
        return { x: at.map(i => rows[i].value), y: at, mode: "markers", marker: { color: colour, size: 8 }, hoverinfo: "text",
          hovertext: at.map(i => `${safe(rows[i].label)}<br>${f.of} ${rows[i].value.toFixed(3)}` + (rows[i].ci95 ? ` [${rows[i].ci95.map(x => x.toFixed(3)).join(", ")}]` : "")),
          error_x: { type: "data", symmetric: false, array: at.map(i => ends(1)[i]), arrayminus: at.map(i => ends(0)[i]), color: colour, thickness: 1.5, width: 3 } };
      });
      plot(div, traces, { title: { text: `${f.of} of ${safe(f.recipe)}`, font: { size: 13 } }, margin: { l: 50, r: 10, t: 50, b: 40 },
        shapes: f.marks.map((m, k) => vertical(m.at, k ? "#009E73" : ink(), k ? "dash" : "solid")),
        annotations: f.marks.slice(1).map(m => ({ x: m.at, xref: "x", y: 1, yref: "paper", yanchor: "bottom", showarrow: false, text: m.label, font: { size: 11 } })),
        xaxis: { title: { text: `${f.of}, 95% intervals` }, zeroline: false },
        yaxis: { tickfont: { size: 11 }, tickvals: rows.map((_, i) => i), ticktext: rows.map(row => safe(row.label)), range: [-.7, rows.length - .3], zeroline: false } });
    }, 100 + 21 * rows.length);
  });
}

const SHARES = { token_budget: ["token budget", HUES[5], ""], capacity: ["capacity (φ)", HUES[4], "/"], other: ["rest of the law", HUES[3], "."] };
const BAR = .72;
function channels() {
  [...new Set(data.channels.map(c => c.recipe))].forEach((recipe, k) => {
    show("s-channels");
    grid("channels", recipe, `channels-${k}`);
    const all = data.channels.filter(c => c.recipe === recipe);
    unique(all.map(c => c.r)).forEach((r, nth) => place(`channels-${k}`, div => {
      const at = byId("sizes").value;
      const rows = all.filter(c => c.r === r), splits = rows.map(c => c[at]);
      const told = (label, split, name) => `${label} ${split[name].toFixed(4)}` + (split.ci95[name] ? ` [${split.ci95[name].map(x => x.toFixed(4)).join(", ")}]` : "");
      // the end of a share's bar, on which its interval stands: shares of one sign are stacked
      const names = Object.keys(SHARES);
      const end = (split, k) => names.slice(0, k + 1).map(n => split[n]).filter(v => (v >= 0) === (split[names[k]] >= 0)).reduce((a, b) => a + b, 0);
      const reach = all.flatMap(c => [...names.map((n, k) => [n, end(c[at], k)]), ["delta_loss", c[at].delta_loss]].flatMap(([n, y]) =>
        c[at].ci95[n] ? c[at].ci95[n].map(x => y + x - c[at][n]) : [y])).concat(0);
      const low = Math.min(...reach), high = Math.max(...reach), pad = (high - low) * .05;
      const whisker = (name, dx, ys, style) => ({
        x: rows.map((_, i) => i + dx), y: ys, mode: "markers", hoverinfo: "skip", ...style,
        error_y: { type: "data", symmetric: false, thickness: style.thick, width: 2, color: ink(),
          array: splits.map(s => s.ci95[name] ? s.ci95[name][1] - s[name] : 0), arrayminus: splits.map(s => s.ci95[name] ? s[name] - s.ci95[name][0] : 0) },
      });
      const bars = names.map(name => {
        const [label, colour, hatch] = SHARES[name];
        return { type: "bar", x: rows.map((_, i) => i), y: splits.map(s => s[name]), width: BAR, opacity: isDark() ? .7 : 1, marker: { color: colour, pattern: { shape: hatch, fillmode: "replace", bgcolor: colour, fgcolor: "#333", size: 6 }, line: { color: ink(), width: .5 } },
          hoverinfo: "text", textposition: "none", hovertext: splits.map(s => told(label, s, name)) };
      });
      const lines = names.map((name, k) => whisker(name, (k - 1) * BAR / 4 - BAR / 8, splits.map(s => end(s, k)), { thick: 1, marker: { size: .1, color: ink() } }));
      const whole = { ...whisker("delta_loss", BAR / 2.5, splits.map(s => s.delta_loss), { thick: 2, marker: { symbol: "diamond", size: 8, color: ink() } }),
        hoverinfo: "text", hovertext: splits.map(s => told("change", s, "delta_loss")) };
      plot(div, [...bars, ...lines, whole], { barmode: "relative", title: { text: `r = ${r}`, font: { size: 13 } },
        xaxis: { title: { text: "training FLOPs" }, tickvals: rows.map((_, i) => i), ticktext: rows.map(c => c.budget.toPrecision(3).replace("e+", "e")), tickfont: { size: 10 }, tickangle: 0, range: [-.6, rows.length - .4], showgrid: false, zeroline: false },
        yaxis: { title: { text: nth ? "" : "change, nats" }, range: [low - pad, high + pad], zerolinecolor: ink() } });
    }));
  });
}

function residuals() {
  data.laws.forEach(law => {
    show("s-residuals");
    place("residuals", div => plot(div, unique(law.runs.r).map((r, i) => {
      const rows = law.runs.r.map((_, j) => j).filter(j => law.runs.r[j] === r);
      return { x: rows.map(j => law.runs.size[j]), y: rows.map(j => law.runs.left[j]), mode: "markers", name: `r = ${r}`, hoverinfo: "text",
        hovertext: rows.map(j => `${safe(law.runs.id[j])}<br>${law.runs.left[j].toFixed(4)} nats`), marker: { color: HUES[i % HUES.length], symbol: SYMBOLS[i % SYMBOLS.length], size: 7 } };
    }), { title: { text: safe(law.recipe), font: { size: 13 } }, showlegend: true, legend: { orientation: "h", y: -.3 }, xaxis: sizes }));
  });
}

const ROUND = [...Array(12).keys()].flatMap(k => [1, 2, 5].map(n => n * 10 ** (k - 4)));
const MS = [.1, .2, .3, .5, .7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64];
const logs = (title, ticks) => ({ type: "log", title: { text: title }, tickvals: ticks, ticktext: ticks.map(String), tickangle: 0 });
const worthPlot = w => div => {
  const rs = w.m.map(one => one.recurrences), last = Math.max(...rs) * 1.15, traces = [];
  const curve = [...Array(41).keys()].map(i => last ** (i / 40)), grey = "#888";
  const power = phi => curve.map(r => r ** phi);
  if (w.phi !== null) {
    if (w.phi_ci95) w.phi_ci95.forEach((end, k) => traces.push({ x: curve, y: power(end), mode: "lines", line: { width: 0, color: grey }, hoverinfo: "skip", showlegend: false, ...(k ? { fill: "tonexty", fillcolor: "rgba(128,128,128,.22)" } : {}) }));
    traces.push({ x: curve, y: power(w.phi), mode: "lines", line: { color: grey, width: 1.5 }, name: "r<sup>φ</sup> of the law" + (w.phi_ci95 ? ", 95%" : ""), hoverinfo: "skip" });
  }
  const marks = (list, name, apart, colour, symbol) => ({
    x: list.map(one => one.recurrences * apart), y: list.map(one => one.value), mode: "markers", name, hoverinfo: "text", marker: { color: colour, symbol, size: 8 },
    hovertext: list.map(one => `${name}: m(${one.recurrences}) = ${one.value.toFixed(2)}` + (one.ci95 ? ` [${one.ci95.map(x => x.toFixed(2)).join(", ")}]` : "")),
    ...(list.length && list[0].ci95 ? { error_y: { type: "data", symmetric: false, thickness: 1.5, width: 3, color: colour, array: list.map(one => one.ci95[1] - one.value), arrayminus: list.map(one => one.value - one.ci95[0]) } } : {}),
  });
  if (w.free.length) traces.push(marks(w.free, "the law's free m", 1 / 1.04, HUES[2], "diamond-open"));
  traces.push(marks(w.m, "without a law", 1, isDark() ? HUES[5] : HUES[0], "circle"));
  if (w.split) traces.push(marks(w.split.m, w.split.name, 1.04, HUES[1], "square"));
  plot(div, traces, { title: { text: "m(r)", font: { size: 13 } }, showlegend: true, legend: { orientation: "h", y: -.22, traceorder: "normal" },
    xaxis: logs("r, passes", [1, ...rs]), yaxis: logs("unlooped blocks that they are worth", MS) });
};
const leftPlot = w => div => plot(div, unique(w.twins.map(one => one.r)).map((r, i) => {
  const own = w.twins.filter(one => one.r === r);
  return { x: own.map(one => one.tokens_per_parameter), y: own.map(one => 1e4 * one.left), mode: "markers", name: `r = ${r}`, hoverinfo: "text", marker: { color: HUES[i % HUES.length], symbol: SYMBOLS[i % SYMBOLS.length], size: 7 },
    hovertext: own.map(one => `${safe(one.id)}<br>${(1e4 * one.left).toFixed(1)} · 10<sup>−4</sup>, ${one.tokens_per_parameter.toPrecision(3)} tokens per parameter` + (one.m === null ? "" : `<br>m = ${one.m.toFixed(2)} by itself`)) };
}), { title: { text: "looped runs less their r's m", font: { size: 13 } }, showlegend: true, legend: { orientation: "h", y: -.22 },
  xaxis: logs("tokens per parameter, each pass counted", ROUND), yaxis: { title: { text: "log loss, 10<sup>−4</sup>" }, zerolinecolor: ink() } });
const mapPlot = (map, panel) => div => {
  const reach = Math.max(map.reach, .1), factor = x => x === null ? "" : Math.exp(x).toFixed(2);
  plot(div, [{ type: "heatmap", x: map.budgets, y: map.widths, z: panel.log, zmin: -reach, zmax: reach, showscale: false, xgap: 1, ygap: 1, hoverongaps: false,
    colorscale: [[0, HUES[0]], [.5, isDark() ? "#3b4046" : "#f2f2f2"], [1, HUES[1]]],
    text: panel.log.map(row => row.map(factor)), texttemplate: map.budgets.length * map.widths.length <= 120 ? "%{text}" : "", textfont: { size: 10 }, hovertemplate: "width %{y}, %{x} FLOPs: %{text}<extra></extra>" }],
  { title: { text: `r = ${panel.r}`, font: { size: 13 } }, xaxis: { type: "category", title: { text: "training FLOPs" }, tickfont: { size: 10 }, showgrid: false }, yaxis: { type: "category", title: { text: "width" }, showgrid: false } });
};
function lawFree() {
  data.worth.forEach((w, k) => {
    show("s-free");
    grid("free", w.recipe, `free-${k}`);
    byId(`free-${k}`).className = "wide";
    place(`free-${k}`, worthPlot(w), 360);
    place(`free-${k}`, leftPlot(w), 360);
    if (!w.map) return;
    grid("free", w.map.title, `map-${k}`);
    w.map.panels.forEach(panel => place(`map-${k}`, mapPlot(w.map, panel), 130 + 19 * w.map.widths.length));
  });
}

// Parameters and FLOPs: arXiv 2604.21106 and its released code, as in isodepth's accounting.py
function account(shape, r) {
  const { d, outside, depth, injection, lanes, last, V, T } = shape, k = Math.min(last, r);
  const b = 12 * d * d + 2 * d, blocks = (depth - outside) / r, scalars = lanes * lanes + 2 * lanes;
  const held = r === 1 ? 0 : injection === "linear" ? 2 * d * d : injection === "hyperconnections" ? r * scalars : 0;
  const pass = r > 1 && injection === "hyperconnections" ? scalars * d : held;
  const flops = 6 * (outside * b + V * d) + (2 * (r - k) + 6 * k) * (blocks * b + pass) + 12 * outside * d * T + (4 * (r - k) + 12 * k) * blocks * d * T;
  return { once: outside * b + 3 * d, rec: blocks * b, inject: held, flops, total: outside * b + 3 * d + blocks * b + held };
}
// as isodepth's counting.py
function counted(shape, r, law) {
  const own = account(shape, r), where = law.counting;
  if (where !== "regressed") return [own.once + (where === "once" ? own.inject : 0), own.rec + (where === "rec" ? own.inject : 0)];
  const levels = unique([...law.runs.r, r]), x = levels.map(l => 1 / l), y = levels.map(l => account(shape, l).total);
  const mean = list => list.reduce((a, c) => a + c, 0) / list.length;
  const slope = mean(x.map((v, i) => (v - mean(x)) * (y[i] - mean(y)))) / mean(x.map(v => (v - mean(x)) ** 2));
  return [mean(y) - slope * mean(x), slope / r];
}
function worth() {
  const law = data.laws[byId("c-recipe").value], list = byId("worth"), r = Number(byId("c-r").value), last = byId("c-last").value;
  const read = id => Number(byId(id).value);
  const shape = { d: read("c-width"), outside: read("c-outside"), depth: read("c-depth"), V: read("c-vocab"), T: read("c-tokens"), lanes: read("c-lanes"), injection: byId("c-injection").value, last: last === "" ? r : Number(last) };
  byId("l-lanes").hidden = shape.injection !== "hyperconnections";
  list.replaceChildren();
  const say = (name, text) => { const box = make("div", undefined, list); make("dt", name, box); make("dd", kept(text), box); };
  const { d, outside, depth, V, T, lanes } = shape;
  if (![d, r, depth, V, T, lanes, shape.last].every(x => Number.isInteger(x) && x >= 1) || !Number.isInteger(outside) || outside < 0 || depth <= outside || (depth - outside) % r) {
    say("Not possible", `every field is a whole number of at least 1, and r divides depth − ${outside}`); return;
  }
  if (shape.last > r) { say("Not possible", "no more passes with gradient than recurrences"); return; }
  if (law.counting === "regressed" && unique([...law.runs.r, r]).some(l => (depth - outside) % l)) {
    say("Not possible", `counting by regression over the fitted r needs each of them to divide depth − ${outside}`); return;
  }
  const own = account(shape, r), [once, rec] = counted(shape, r, law), equal = phi => once + r ** phi * rec;
  // the unlooped width w of the same cost: 6(depth(12w² + 2w) + V·w) + 12·depth·w·T = flops
  const q = 72 * depth, h = 12 * depth + 6 * V + 12 * depth * T, w = (-h + Math.sqrt(h * h + 4 * q * own.flops)) / (2 * q);
  const ends = law.phi_ci95, most = Math.max(...law.runs.r);
  const low = Math.min(...law.runs.size), high = Math.max(...law.runs.size);
  const beyond = own.total < low || own.total > high ? `; the runs fitted have ${size(low)} to ${size(high)}: the law is extrapolated` : "";
  say("Unique parameters", size(own.total) + beyond);
  say("Unlooped size of equal loss", size(equal(law.params.phi)) + (ends ? ` [${size(equal(ends[0]))}, ${size(equal(ends[1]))}], from the interval of φ` : "") + (r > most ? `; r = ${r} lies beyond the fitted ${most}: r^φ is extrapolated` : ""));
  say("Unlooped size of equal training cost", size(depth * (12 * w * w + 2 * w) + 3 * w));
  say("Training FLOPs per token", own.flops.toPrecision(4));
}

const shown = { column: -1, down: false, all: false }; // −1: as the table has them
const FIRST = 100;
const words = new Intl.Collator(undefined, { numeric: true });
function table() {
  const { columns, rows, file } = data.runs, sought = byId("search").value.toLowerCase();
  const found = rows.filter(row => row.some(x => String(x ?? "").toLowerCase().includes(sought)));
  const value = row => row[shown.column];
  if (shown.column >= 0) found.sort((a, b) => (typeof value(a) === "number" && typeof value(b) === "number" ? value(a) - value(b) : words.compare(String(value(a) ?? ""), String(value(b) ?? ""))) * (shown.down ? -1 : 1));
  const body = byId("runs").tBodies[0], head = byId("runs").tHead, line = document.createElement("tr");
  const numeric = columns.map((_, i) => rows.some(row => typeof row[i] === "number"));
  columns.forEach((name, i) => {
    const cell = make("th", undefined, line), button = make("button", name + (i === shown.column ? (shown.down ? " ↓" : " ↑") : ""), cell);
    if (numeric[i]) cell.className = "number";
    cell.setAttribute("aria-sort", i === shown.column ? (shown.down ? "descending" : "ascending") : "none");
    button.type = "button";
    button.onclick = () => { shown.down = shown.column === i && !shown.down; shown.column = i; table(); head.querySelectorAll("button")[i].focus(); };
  });
  head.replaceChildren(line);
  body.replaceChildren(...(shown.all ? found : found.slice(0, FIRST)).map(row => {
    const made = document.createElement("tr");
    row.forEach((x, i) => {
      const cell = make("td", typeof x === "number" ? (Number.isInteger(x) && Math.abs(x) < 1e6 ? x : x.toPrecision(5)) : x ?? "", made);
      if (numeric[i]) cell.className = "number";
    });
    return made;
  }));
  const cut = !shown.all && found.length > FIRST;
  byId("count").textContent = `${found.length} of ${rows.length} runs` + (cut ? `, the first ${FIRST} shown; all of them: ${file}, in this page's folder` : "");
  byId("more").hidden = !cut;
}

byId("title").textContent = document.title = data.title;
data.headlines.forEach(([first, rest]) => {
  const item = make("li", undefined, byId("headlines"));
  if (first) make("strong", kept(first), item);
  item.append((first && rest ? ": " : "") + rest);
});
if (data.laws.length) formula(data.laws[0].formula, byId("formula"));
data.tables.forEach(({ title, columns, rows }) => {
  const table = make("table", undefined, make("div", undefined, byId("tables")));
  const scroll = table.parentElement;
  scroll.className = "scroll"; scroll.tabIndex = 0;
  scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", title);
  make("caption", title, table);
  const head = make("tr", undefined, make("thead", undefined, table)), body = make("tbody", undefined, table);
  columns.forEach(name => make("th", name, head));
  rows.forEach(row => { const made = make("tr", undefined, body); row.forEach(x => make("td", kept(x), made)); });
});
Object.entries(data.lists).forEach(([title, said]) => {
  if (!said.length) return;
  const box = make("details", undefined, byId("lists"));
  box.open = data.open.includes(title);
  make("summary", `${title} (${said.length})`, box);
  const list = make("ul", undefined, box);
  said.forEach(s => make("li", s, list));
});
Object.entries(data.made).forEach(([name, text]) => {
  make("dt", name, byId("made"));
  const told = make("dd", undefined, byId("made"));
  if (name !== "Command") { told.textContent = text; told.className = name === "95% intervals" || name === "Versions" ? "" : "code"; return; }
  told.className = "code";
  // broken between words alone: never inside an option's name
  text.split(" ").forEach((word, i) => { if (i) told.append(" "); make("span", word, told); });
});
data.laws.forEach((law, i) => {
  if (!law.slider.length) return;
  make("option", law.recipe, byId("recipe")).value = i;
  make("option", law.recipe, byId("c-recipe")).value = i;
});
if (byId("recipe").options.length) {
  show("held"); show("s-calculator");
  const { shape } = data;
  [["c-width", shape.width], ["c-r", shape.recurrences], ["c-outside", shape.outside], ["c-depth", shape.depth], ["c-injection", shape.injection], ["c-lanes", shape.lanes], ["c-vocab", shape.vocab], ["c-tokens", shape.sequence_length]]
    .forEach(([id, value]) => { byId(id).value = value; });
  byId("c-told").textContent = shape.told;
  choose();
  byId("recipe").onchange = choose;
  byId("phi").oninput = slide;
  byId("reset").onclick = () => { const at = Number(byId("recipe").value); set[at] = { phi: data.laws[at].params.phi, refit: null }; choose(); redraw(at); };
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
curves(); lawFree(); profiles(); forests(); channels(); residuals();
byId("sizes").onchange = () => plots.filter(p => p.div.closest("#channels")).forEach(p => p.draw(p.div));

// What the reader sees first is drawn first; the rest, from the top down, when the browser is idle.
// data-drawn: milliseconds from the start of loading to the last plot.
const waiting = [...plots];
const drawNext = () => { const p = waiting.shift(); p.draw(p.div); };
const idle = window.requestIdleCallback ?? (task => setTimeout(() => task({ timeRemaining: () => 0 }), 1));
function whenIdle(deadline) {
  do if (waiting.length) drawNext(); while (waiting.length && deadline.timeRemaining() > 10);
  if (waiting.length) idle(whenIdle); else root.dataset.drawn = Math.round(performance.now());
}
while (waiting.length && waiting[0].div.getBoundingClientRect().top < innerHeight) drawNext();
idle(whenIdle);
function drawAll() {
  waiting.length = 0;
  if (budgets.length) legend();
  plots.forEach(p => p.draw(p.div));
}
dark.addEventListener("change", drawAll);
// On paper: light, as wide as the sheet, nothing folded away.
let folded = [];
addEventListener("beforeprint", () => {
  root.classList.add("printing");
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach(box => { box.open = true; });
  drawAll();
});
addEventListener("afterprint", () => {
  root.classList.remove("printing");
  folded.forEach(box => { box.open = false; });
  drawAll();
});
