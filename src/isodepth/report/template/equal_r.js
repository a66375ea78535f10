"use strict";
// Runs at equal r: differences of pairs with what is predicted of them, and Δφ under every form.
const rHue = i => i === 0 && isDark() ? HUES[5] : HUES[i % 5];

function equalR() {
  (data.equal_r ?? []).forEach((one, k) => {
    show("s-paired"); show("s-forms");
    beside("paired", `paired-${k}`, div => pairs(div, one), 400, one.tables.paired);
    beside("forms", `forms-${k}`, div => forms(div, one), 110 + 26 * one.forms.length, one.tables.forms);
  });
}
// a plot and its table, next to each other where there is room
function beside(holder, id, draw, height, table) {
  const both = make("div", undefined, byId(holder));
  both.className = "beside"; both.id = id;
  place(id, draw, height);
  tabled(both, table);
}

function pairs(div, { recipe, pairs }) {
  const runs = pairs.flatMap(p => p.runs), least = Math.min(...runs.map(run => run.tokens_per_parameter)), most = Math.max(...runs.map(run => run.tokens_per_parameter));
  const traces = pairs.flatMap(({ r, runs }, i) => {
    const colour = rHue(i), symbol = SYMBOLS[i % SYMBOLS.length];
    // a line a budget: plotly breaks a line at null
    const inBudgets = [...new Set(runs.map(run => run.budget_flops))].flatMap(b => [...runs.filter(run => run.budget_flops === b), null]);
    const drawn = (by, dash) => ({ x: inBudgets.map(run => run && run.tokens_per_parameter), y: inBudgets.map(run => run && run[by]), mode: "lines", line: { color: colour, width: 1.3, dash }, hoverinfo: "skip", showlegend: false });
    const told = (name, value) => value === null ? "" : `<br>${name} ${value.toFixed(4)}`;
    const marks = matched => {
      const shown = runs.filter(run => run.matched === matched), every = runs.every(run => run.matched === matched);
      return { x: shown.map(run => run.tokens_per_parameter), y: shown.map(run => run.delta_log_loss), mode: "markers", name: `r = ${r}`, hoverinfo: "text", showlegend: matched || every,
        marker: { color: colour, size: 8, symbol: matched ? symbol : `${symbol}-open`, line: { width: matched ? 0 : 1.5, color: colour } },
        hovertext: shown.map(run => safe(run.run_id) + told("difference", run.delta_log_loss) + told("laws' Δφ alone", run.by_phi) + told("form", run.by_form) + `<br>${run.tokens_per_parameter.toPrecision(3)} tokens per parameter` + (run.budget_flops === null ? "" : `, ${run.budget_flops.toPrecision(3)} FLOPs`)) };
    };
    return [...(runs[0].by_phi === null ? [] : [drawn("by_phi", "dot")]), drawn("by_form", "solid"), ...[true, false].filter(m => runs.some(run => run.matched === m)).map(marks)];
  });
  const ticks = [1, 2, 5].flatMap(n => [...Array(12).keys()].map(k => n * 10 ** (k - 4))).filter(n => n >= least / 2 && n <= most * 2).sort((a, b) => a - b);
  plot(div, traces, { title: { text: safe(recipe), font: { size: 13 } }, showlegend: true, legend: { orientation: "h", y: -.2 },
    xaxis: { type: "log", title: { text: "tokens per parameter" }, tickvals: ticks, ticktext: ticks.map(n => Number(n.toPrecision(3)).toLocaleString("en")), tickangle: 0 },
    yaxis: { title: { text: "difference of log loss" }, zerolinecolor: ink(), tickformat: ".3f" } });
}

const FORM_STYLES = { holds: ["#D55E00", 1, "diamond"], counts: ["", 1, "circle"], other: ["", 1, "circle-open"], no: ["", .3, "circle"], laws: ["#009E73", 1, "square"] };
function forms(div, { recipe, forms, span, range, marks }) {
  const rows = forms.filter(row => row.value !== null).reverse();
  const traces = Object.entries(FORM_STYLES).map(([kind, [own, opacity, symbol]]) => {
    const at = rows.map((_, i) => i).filter(i => rows[i].kind === kind), colour = own || (kind === "no" ? ink() : isDark() ? HUES[5] : HUES[0]);
    const to = k => at.map(i => rows[i].ci95 ? Math.abs(rows[i].ci95[k] - rows[i].value) : 0);
    return { x: at.map(i => rows[i].value), y: at, mode: "markers", opacity, marker: { color: colour, size: 8, symbol }, hoverinfo: "text",
      hovertext: at.map(i => `${safe(rows[i].label)}<br>Δφ ${rows[i].value.toFixed(3)}` + (rows[i].ci95 ? ` [${rows[i].ci95.map(x => x.toFixed(3)).join(", ")}]` : "")),
      error_x: { type: "data", symmetric: false, array: to(1), arrayminus: to(0), color: colour, thickness: 1.8, width: 3 } };
  });
  const shapes = marks.map((m, k) => vertical(m.at, k ? "#009E73" : ink(), k ? "dash" : "solid"));
  // a line where one form alone is admissible
  if (range) shapes.push({ type: "rect", xref: "x", yref: "paper", x0: range[0], x1: range[1], y0: 0, y1: 1, fillcolor: "#E69F00", opacity: .25, layer: "below", line: { width: 2, color: "#E69F00" } });
  plot(div, traces, { title: { text: `Δφ of ${safe(recipe)}`, font: { size: 13 } }, margin: { l: 50, r: 10, t: 50, b: 40 }, shapes,
    annotations: marks.slice(1).map(m => ({ x: m.at, xref: "x", y: 1, yref: "paper", yanchor: "bottom", showarrow: false, text: m.label, font: { size: 11 } })),
    xaxis: { title: { text: "Δφ, 95% intervals" }, range: span, zeroline: false },
    yaxis: { tickfont: { size: 11 }, tickvals: rows.map((_, i) => i), ticktext: rows.map(row => safe(row.label)), range: [-.7, rows.length - .3], zeroline: false } });
}
