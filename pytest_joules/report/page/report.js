"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const option = (value, text) => {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text.length > 120 ? `${text.slice(0, 60)}…${text.slice(-59)}` : text;
    return made;
  };
  // Plotly reads a little HTML in texts; names must not.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text) => plain(text.length > 60 ? `${text.slice(0, 30)}…${text.slice(-29)}` : text);

  /* The table sorts and filters without the plots. */
  const table = $("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const filter = () => {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = $("verdict").value;
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = (verdict && row.dataset.verdict !== verdict) || !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    $("shown").textContent = `${shown} of ${body.rows.length} rows`;
  };
  const sort = (head) => {
    const place = heads.indexOf(head);
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const isNumber = head.dataset.kind === "number";
    const key = (row) => {
      const cell = row.cells[place];
      return isNumber ? (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)) : cell.textContent;
    };
    const order = (a, b) => {
      if (!isNumber) return sign * a.localeCompare(b, "en", { numeric: true });
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // unknown stays last
      return sign * (a - b);
    };
    const keyed = [...body.rows].map((row) => [key(row), row]);
    body.append(...keyed.sort((a, b) => order(a[0], b[0])).map(([, row]) => row));
    heads.forEach((each) => each.hasAttribute("aria-sort") && each.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  };
  $("filter").addEventListener("input", filter);
  $("verdict").addEventListener("change", filter);
  for (const head of heads) head.querySelector("button")?.addEventListener("click", () => sort(head));

  const data = JSON.parse(await unpack("data"));
  const script = document.createElement("script");
  script.textContent = await unpack("plotly");
  document.head.append(script);
  const Plotly = window.Plotly;

  const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a"];
  const symbols = ["circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon"];
  const theme = () => {
    const css = getComputedStyle(document.documentElement);
    return (name) => css.getPropertyValue(name).trim();
  };
  const layout = (extra) => {
    const of = theme();
    const axis = (more) => ({ gridcolor: of("--line"), zerolinecolor: of("--line"), linecolor: of("--line"), automargin: true, ...more });
    const made = {
      paper_bgcolor: of("--page"), plot_bgcolor: of("--page"), font: { color: of("--text") },
      margin: { t: 20, r: 20, b: 50, l: 60 }, hovermode: "closest",
      legend: { orientation: "h", y: -0.2 }, ...extra,
    };
    for (const name of Object.keys(made)) if (/^[xy]axis/.test(name)) made[name] = axis(made[name]);
    return made;
  };
  const config = { responsive: true, displayModeBar: false };
  const draw = async (id, traces, extra) => {
    $(id).hidden = numbersOf(id).hidden = false;
    await Plotly.react(id, traces, layout(extra), config);
    if (numbersOf(id).open) fill(id);
  };
  const blank = (id, note, text) => {
    $(id).hidden = numbersOf(id).hidden = true;
    $(note).textContent = text;
  };

  /* By keyboard: arrow keys step through a chart's points, and a table holds its numbers. */
  const places = new Map();
  const numbersOf = (id) => document.querySelector(`details[data-of="${id}"]`);
  const titleOf = (axis) => axis?.title?.text ?? "";
  const series = (id) =>
    $(id).data.flatMap((trace, curve) => {
      if (trace.hoverinfo === "skip") return [];
      const y = `y${(trace.yaxis ?? "y").slice(1)}`;
      const titles = [titleOf($(id).layout.xaxis), titleOf($(id).layout[y.replace("y", "yaxis")])];
      const points = trace.x.map((x, i) => ({ curve, i, x, y: trace.y[i], note: trace.meta?.notes[i] ?? "", row: trace.customdata?.[i] }));
      return [{ name: trace.meta?.label ?? "", subplot: `x${y}`, titles, points: points.filter((point) => point.y !== null) }];
    }).filter((each) => each.points.length);
  const step = (id, key) => {
    const all = series(id);
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -Infinity], End: [0, Infinity] };
    const within = (value, length) => Math.max(0, Math.min(length - 1, value));
    if (!all.length) return;
    const [was, at] = places.get(id) ?? [0, key === "End" ? 0 : -1];
    const which = within(was + moves[key][0], all.length);
    const chosen = all[which];
    places.set(id, [which, within(Math.max(at, moves[key][0] ? 0 : at) + moves[key][1], chosen.points.length)]);
    const point = chosen.points[places.get(id)[1]];
    Plotly.Fx.hover(id, [{ curveNumber: point.curve, pointNumber: point.i }], chosen.subplot);
    const texts = [chosen.name, `${chosen.titles[0]} ${point.x}`, `${chosen.titles[1]} ${point.y}`, point.note];
    $("said").textContent = texts.filter(Boolean).join("; ");
  };
  const pressed = (event) => {
    const id = event.currentTarget.id;
    if (/^(Arrow|Home|End)/.test(event.key)) step(id, event.key);
    else if (event.key !== "Enter" || !places.has(id)) return;
    else {
      const [which, at] = places.get(id);
      const row = series(id)[which]?.points[at]?.row;
      if (row === undefined) return;
      choose(row);
      $("said").textContent = `The launch of ${data.rows[row].name} is shown below.`;
    }
    event.preventDefault();
  };
  const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  const fill = (id) => {
    const made = document.createElement("table");
    const all = series(id);
    const head = made.createTHead().insertRow();
    head.append(...["Series", all[0].titles[0], "Value", "Note"].map((text) => Object.assign(cell("th", text), { scope: "col" })));
    const rows = all.flatMap((each) => each.points.map((point) => [each.name || each.titles[1], point.x, point.y, point.note]));
    const body = made.createTBody();
    for (const texts of rows) body.insertRow().append(...texts.map((text) => cell("td", text)));
    numbersOf(id).querySelector(".scroll").replaceChildren(made);
  };
  for (const plot of document.querySelectorAll(".plot")) {
    plot.addEventListener("keydown", pressed);
    numbersOf(plot.id).addEventListener("toggle", (event) => event.target.open && fill(plot.id));
  }

  const hover = (curve, i, unit) =>
    `${short(curve.label)}<br>batch ${curve.batch[i]}: ${curve.energy[i]} J/${unit}<br>${curve.verdict[i]}`;
  const meta = (curve, unit, places) => ({
    label: curve.label,
    notes: places.map((i) => [
      `batch ${curve.batch[i]}`, curve.verdict[i], curve.pareto[i] && "in the Pareto set",
      curve.band[i] && `reference ${curve.band[i][1]} J/${unit}, within tolerance from ${curve.band[i][0]} to ${curve.band[i][2]}`,
    ].filter(Boolean).join(", ")),
  });
  const drawBatch = (family) => {
    const traces = [];
    family.curves.forEach((curve, n) => {
      const colour = colours[n % colours.length];
      const known = curve.band.map((band, i) => [band, curve.batch[i]]).filter(([band]) => band);
      if (known.length) {
        const x = known.map(([, batch]) => batch);
        const edge = { type: "scatter", mode: "lines", legendgroup: n, showlegend: false, hoverinfo: "skip", line: { width: 0 } };
        // A band over one batch size has no width, so its edges are marked as well.
        const marks = { mode: "lines+markers", marker: { symbol: "line-ew-open", size: 14, color: colour } };
        traces.push({ ...edge, ...marks, x, y: known.map(([band]) => band[0]) });
        traces.push({ ...edge, ...marks, x, y: known.map(([band]) => band[2]), fill: "tonexty", fillcolor: `${colour}33` });
        traces.push({ ...edge, x, y: known.map(([band]) => band[1]), line: { width: 1, dash: "dot", color: colour } });
      }
      traces.push({
        type: "scatter", mode: "lines+markers", name: short(curve.label), legendgroup: n, x: curve.batch, y: curve.energy,
        line: { color: colour }, customdata: curve.row, meta: meta(curve, family.unit, [...curve.batch.keys()]), hoverinfo: "text", text: curve.batch.map((_, i) => hover(curve, i, family.unit)),
        marker: { color: colour, size: 9, symbol: curve.valid.map((ok) => (ok ? symbols[n % symbols.length] : "x")) },
      });
    });
    return draw("plot-batch", traces, {
      xaxis: { title: { text: "Batch size" }, type: "log", tickvals: [...new Set(family.curves.flatMap((c) => c.batch))], tickformat: "d" },
      yaxis: { title: { text: `Energy, J/${family.unit}` }, rangemode: "tozero" },
    });
  };
  const drawFrontier = (family) => {
    const traces = [];
    const best = [];
    let untimed = 0;
    family.curves.forEach((curve, n) => {
      const timed = curve.batch.map((_, i) => i).filter((i) => curve.time[i] !== null && curve.valid[i]);
      untimed += curve.batch.length - timed.length;
      for (const i of timed) if (curve.pareto[i]) best.push([curve.time[i], curve.energy[i]]);
      if (!timed.length) return;
      traces.push({
        type: "scatter", mode: "lines+markers+text", name: short(curve.label), x: timed.map((i) => curve.time[i]), y: timed.map((i) => curve.energy[i]),
        text: timed.map((i) => String(curve.batch[i])), textposition: "top center", hoverinfo: "text", hovertext: timed.map((i) => hover(curve, i, family.unit)),
        customdata: timed.map((i) => curve.row[i]), meta: meta(curve, family.unit, timed), line: { color: colours[n % colours.length], width: 1 },
        marker: { symbol: symbols[n % symbols.length], size: 8, color: colours[n % colours.length] },
      });
    });
    $("untimed").textContent = untimed ? `${untimed} points without a valid latency are not shown.` : "";
    if (!traces.length) return blank("plot-frontier", "untimed", "No point of this model and task has a latency.");
    best.sort((a, b) => a[0] - b[0]);
    traces.unshift({
      type: "scatter", mode: "lines+markers", name: "Pareto set", x: best.map((b) => b[0]), y: best.map((b) => b[1]), hoverinfo: "skip",
      line: { color: theme()("--text"), width: 5 }, marker: { size: 16, color: "rgba(0,0,0,0)", line: { width: 2, color: theme()("--text") } }, opacity: 0.45,
    });
    return draw("plot-frontier", traces, {
      xaxis: { title: { text: `${family.time}, s` }, rangemode: "tozero" }, yaxis: { title: { text: `Energy, J/${family.unit}` }, rangemode: "tozero" },
    });
  };

  const panels = [["power_w", "Power, W"], ["running", "Running batch"], ["kv_cache_usage", "KV cache, share"], ["temperature_c", "Hottest GPU, °C"]];
  const drawTimeline = (row) => {
    const line = row.timeline;
    $("no-timeline").textContent = "";
    const known = line ? panels.filter(([name]) => line[name].some((value) => value !== null)) : [];
    if (!known.length) return blank("plot-timeline", "no-timeline", "No timeline is stored for this point.");
    const missing = panels.filter((panel) => !known.includes(panel)).map(([, title]) => title);
    if (missing.length) $("no-timeline").textContent = `Not read: ${missing.join("; ")}.`;
    const extra = { xaxis: { title: { text: "Seconds since the first reading" }, anchor: known.length > 1 ? `y${known.length}` : "y" }, showlegend: false, shapes: [], margin: { t: 10, r: 20, b: 50, l: 70 } };
    const height = 1 / known.length;
    const traces = known.map(([name, title], n) => {
      const suffix = n ? String(n + 1) : "";
      extra[`yaxis${suffix}`] = { title: { text: title }, domain: [1 - (n + 1) * height + 0.03, 1 - n * height], rangemode: "tozero" };
      return { type: "scatter", mode: "lines", yaxis: `y${suffix}`, line: { color: colours[n], shape: "hvh" }, x: line[name].map((_, i) => Number(((i + 0.5) * line.step_s).toPrecision(6))), y: line[name], name: title };
    });
    extra.shapes.push({ type: "rect", xref: "x", yref: "paper", x0: line.window_start_s, x1: line.window_end_s, y0: 0, y1: 1, fillcolor: theme()("--accent"), opacity: 0.15, line: { width: 0 }, layer: "below" });
    return draw("plot-timeline", traces, extra);
  };
  const drawLengths = (row) => {
    const counts = row.timeline?.output_tokens_counts ?? [];
    $("no-lengths").textContent = "";
    if (!counts.length) return blank("plot-lengths", "no-lengths", "None are stored for this point.");
    const edges = row.timeline.output_tokens_edges;
    return draw("plot-lengths", [{ type: "bar", x: counts.map((_, i) => (edges[i] + edges[i + 1]) / 2), width: counts.map((_, i) => edges[i + 1] - edges[i]), y: counts, marker: { color: colours[0] } }], {
      xaxis: { title: { text: "Output tokens" } }, yaxis: { title: { text: "Requests" } }, bargap: 0,
    });
  };
  const drawCauses = (row) => {
    $("no-causes").textContent = "";
    if (!row.causes.length) return blank("plot-causes", "no-causes", "None were looked for or found for this point.");
    const names = [...row.causes.map((cause) => short(cause.name)), "total"];
    const share = row.causes.map((cause) => 100 * cause.share);
    const total = share.reduce((a, b) => a + b, 0);
    return draw("plot-causes", [{
      type: "waterfall", x: names, y: [...share, total], measure: [...share.map(() => "relative"), "total"],
      text: [...share, total].map((value) => `${value > 0 ? "+" : ""}${value.toFixed(1)} %`), textposition: "outside",
      increasing: { marker: { color: "#d55e00" } }, decreasing: { marker: { color: "#0072b2" } }, totals: { marker: { color: "#8a8a8a" } }, cliponaxis: false,
    }], { yaxis: { title: { text: "Change of ln(energy), %" } }, xaxis: { title: { text: "Cause" } }, showlegend: false });
  };

  const family = $("family");
  const which = $("which");
  data.families.forEach((each, n) => family.append(option(n, each.name)));
  data.rows.forEach((each, n) => which.append(option(n, `${each.name}${each.verdict ? `: ${each.verdict}` : ""}`)));
  const drawFamily = () => data.families.length && Promise.all([drawBatch(data.families[family.value]), drawFrontier(data.families[family.value])]);
  const drawRow = () => {
    const row = data.rows[which.value];
    return row && Promise.all([drawTimeline(row), drawLengths(row), drawCauses(row)]);
  };
  const drawAll = () => Promise.all([drawFamily(), drawRow()]);
  const choose = (index) => {
    which.value = index;
    family.value = data.families.findIndex((each) => each.curves.some((curve) => curve.row.includes(Number(index))));
    return drawAll();
  };
  family.addEventListener("change", drawFamily);
  which.addEventListener("change", () => choose(which.value));
  body.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-row]");
    if (link) choose(link.dataset.row);
  });
  const red = ["regression", "invalid", "inconclusive"].map((verdict) => data.rows.findIndex((row) => row.verdict === verdict)).find((index) => index >= 0);
  if (data.rows.length) await choose(red ?? 0);
  for (const id of ["plot-batch", "plot-frontier"])
    $(id).on?.("plotly_click", (event) => event.points[0].customdata !== undefined && choose(event.points[0].customdata));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  matchMedia("print").addEventListener("change", drawAll);
  document.documentElement.dataset.drawn = "yes";
})().catch((error) => {
  document.getElementById("trouble").textContent = `The plots could not be drawn (${error.message}); they need a browser of 2023 or newer. All numbers stand in the tables.`;
  throw error;
});
