"use strict";
(() => {
  // What goes wrong is in the page, where a test finds it.
  addEventListener("error", (event) => { document.documentElement.dataset.error = event.message; });
  const D = JSON.parse(document.getElementById("data").textContent);
  const el = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const place = Object.fromEntries([...LETTERS].map((letter, n) => [letter, n]));
  const plainText = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
  const number = (letter) => place[letter];
  // Names in attributes are as the page has them: without control characters.
  const tidy = (name) => name.replace(/[\0-\x1f\x7f-\x9f]/g, "\ufffd");
  const make = (tag, text) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const digits = (v) => v === null || v === undefined || Number.isNaN(v) ? "-"
    : Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : Math.abs(v) >= 1 ? v.toFixed(2)
    : v === 0 ? "0" : v.toPrecision(2);
  const time = (ns) => ns >= 1e9 ? digits(ns / 1e9) + " s" : ns >= 1e6 ? digits(ns / 1e6) + " ms"
    : ns >= 1e3 ? digits(ns / 1e3) + " us" : digits(ns) + " ns";

  // Each point is two letters; the last value is repeated at the end of its bucket, for the step.
  const unpack = (line, factor, count) => {
    const out = [];
    for (let n = 0; n + 1 < line.points.length; n += 2)
      out.push((place[line.points[n]] * 64 + place[line.points[n + 1]]) * line.step * factor);
    if (out.length) out.push(out[out.length - 1]);
    while (out.length < count) out.push(null);
    return out;
  };

  const thousands = D.arms.some((arm) => Math.max(0, ...unpack(arm.ops, 1, 0)) >= 2000);
  const METRICS = [
    { key: "ops", title: thousands ? "throughput, kop/s" : "throughput, op/s", factor: thousands ? 1e-3 : 1, height: 190, fill: true },
    { key: "stall", title: "stall, seconds a second over all writers", factor: 1e-3, height: 130, fill: true, tone: "bad" },
    { key: "p99", title: "write p99, ms", factor: 1e-3, height: 130, host: "more-charts" },
    { key: "memtable", title: "memtables, MiB", factor: 1 / 1048576, height: 130, fill: true, host: "more-charts" },
    { key: "imm", title: "immutable memtables", factor: 1, whole: true, height: 130, host: "more-charts" },
    { key: "l0", title: "tables in level 0", factor: 1, whole: true, height: 130, host: "more-charts" },
  ];
  const stepped = uPlot.paths.stepped({ align: 1 });
  const font = "11px system-ui, sans-serif";
  const axis = (more) => Object.assign({
    stroke: () => css("muted"), font, grid: { stroke: () => css("grid"), width: 1 }, ticks: { stroke: () => css("grid"), width: 1 },
  }, more);
  const charts = [];
  const redraw = [];
  const panel = el("over-time");

  // A run that failed may have a timeline and no samples.
  const nothing = { step: 1, points: "" };
  const bare = D.timelines.filter((timeline) => !D.arms.some((arm) => arm.arm === timeline.arm))
    .map((timeline) => ({ arm: timeline.arm, seed: timeline.seed, ops: nothing, stall: nothing, p99: nothing, memtable: nothing, imm: nothing, l0: nothing }));
  const arms = D.arms.concat(bare);
  const points = Math.max(0, ...D.arms.map((arm) => arm.ops.points.length / 2));
  const xs = Array.from({ length: points + 1 }, (_, n) => n * D.bucket_ms / 1000);
  const base = arms.find((arm) => arm.arm === D.baseline);
  let chosen = arms.find((arm) => arm.arm === D.first) || arms[0];
  // Left of the plots there is room for a tenant's name.
  const room = () => innerWidth < 700 ? 56 : 104;
  const PAPER = 690;
  const onPaper = () => document.documentElement.classList.contains("paper");
  const width = (box) => Math.max(240, onPaper() ? (box.parentNode.id === "charts" ? PAPER : PAPER / 2 - 20) : box.clientWidth);

  const rowsOf = (metric) => {
    const rows = [xs, unpack(chosen[metric.key], metric.factor, xs.length),
      base && base !== chosen ? unpack(base[metric.key], metric.factor, xs.length) : xs.map(() => null)];
    if (metric.key === "memtable" && chosen.budget_bytes)
      rows.push(xs.map(() => chosen.budget_bytes * metric.factor));
    else if (metric.key === "memtable") rows.push(xs.map(() => null));
    return rows;
  };

  // One range for every panel; each says in `data-zoom` what it drew.
  let syncing = false;
  let timeline = null;
  let shown = null;
  const end = Math.max(xs[xs.length - 1], ...bare.map((arm) => D.timelines.find((timeline) => timeline.arm === arm.arm).end_ns / 1e9));
  const zoom = (from, to) => {
    const span = Math.min(end, Math.max(to - from, end / 2000));
    const min = Math.max(0, Math.min(from, end - span));
    const max = min + span;
    shown = [min, max];
    syncing = true;
    for (const chart of charts) chart.setScale("x", { min, max });
    syncing = false;
    if (timeline) timeline.zoom(min, max);
  };
  const whole = () => zoom(0, end);
  const fromAddress = () => {
    const arm = /[#&]arm=([^&]*)/.exec(location.hash);
    const named = arm && arms.find((known) => known.arm === plainText(arm[1]));
    if (named) choose(named.arm);
    const asked = /[#&]zoom=([0-9.]+),([0-9.]+)/.exec(location.hash);
    if (asked && +asked[2] > +asked[1]) zoom(+asked[1], +asked[2]);
  };

  const timeChart = (metric) => {
    const box = make("div");
    box.className = "chart";
    box.append(make("h3", metric.title));
    el(metric.host || "charts").append(box);
    const tone = metric.tone || "accent";
    const value = (_, v) => digits(v);
    const series = [
      { label: "t", value: (_, v) => v === null ? "-" : v.toFixed(2) + " s" },
      { label: chosen.arm, stroke: () => css(tone), fill: metric.fill ? () => css(tone + "-fill") : undefined, width: 1.5, paths: stepped, points: { show: false }, value },
      { label: "baseline", stroke: () => css("base"), width: 1, dash: [4, 3], paths: stepped, points: { show: false }, value },
    ];
    if (metric.key === "memtable")
      series.push({ label: "budget", stroke: () => css("bad"), width: 1, dash: [2, 4], points: { show: false }, value });
    const chart = new uPlot({
      width: width(box), height: metric.height, series, padding: [null, 20, null, null],
      cursor: { y: false, sync: { key: "time" }, drag: { x: true, y: false } },
      legend: { live: true },
      scales: { x: { time: false }, y: { range: (_, min, max) => [0, max > 0 ? max * 1.06 : 1] } },
      axes: [axis({ values: (_, ticks) => ticks.map((t) => +t.toFixed(3) + " s"), size: 26 }),
        axis({ size: metric.host ? 52 : room(), space: 26, incrs: metric.whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] : undefined, values: (_, ticks) => ticks.map((v) => +v.toFixed(4) + "") })],
      hooks: {
        setScale: [(chart, key) => {
          if (key !== "x" || syncing) return;
          zoom(chart.scales.x.min, chart.scales.x.max);
        }],
        draw: [(chart) => { box.dataset.zoom = chart.scales.x.min.toFixed(3) + "," + chart.scales.x.max.toFixed(3); }],
      },
    }, rowsOf(metric), box);
    chart.over.addEventListener("dblclick", whole);
    charts.push(chart);
    redraw.push(() => chart.setData(rowsOf(metric), false));
    return chart;
  };

  const resize = () => {
    charts.forEach((chart, n) => chart.setSize({ width: width(chart.root.parentNode), height: METRICS[n].height }));
    if (timeline) timeline.draw();
  };
  const bounds = () => {
    if (!charts.length) return { left: room(), width: Math.max(100, el("timeline-chart").clientWidth - room() - 20) };
    const { left, width } = charts[0].bbox, ratio = devicePixelRatio || 1;
    return { left: left / ratio, width: width / ratio };
  };
  const curveCharts = [];
  const highlight = () => {
    for (const draw of curveCharts) draw();
    for (const row of document.querySelectorAll("#headline tr[data-arm]"))
      row.classList.toggle("picked", !!chosen && tidy(row.dataset.arm) === tidy(chosen.arm));
  };
  const choose = (name) => {
    const arm = arms.find((arm) => arm.arm === name);
    if (!arm) return;
    chosen = arm;
    el("arm").value = name;
    el("seed-note").textContent = "The run of seed " + arm.seed + (arm.ops === nothing ? " left no samples."
      : "; points of " + D.bucket_ms / 1000 + " s: rates are means, the rest peaks.");
    for (const chart of charts) {
      const label = chart.root.querySelectorAll(".u-legend .u-label")[1];
      if (label) label.textContent = name;
    }
    for (const draw of redraw) draw();
    zoom(...shown);
    if (timeline) timeline.show(D.timelines.find((timeline) => timeline.arm === name));
    highlight();
  };

  if (arms.length) {
    panel.hidden = false;
    for (const arm of arms) {
      const option = make("option", arm.arm + (arm === base ? " (baseline)" : ""));
      option.value = arm.arm;
      el("arm").append(option);
    }
    if (D.arms.length) METRICS.forEach(timeChart);
    if (D.timelines.length) {
      el("timeline").hidden = false;
      timeline = makeTimeline(el("timeline-chart"), el("timeline-note"), { css, number, digits, bounds, zoom, end });
    }
    resize();
    whole();
    el("arm").addEventListener("change", (event) => choose(event.target.value));
    el("reset").addEventListener("click", whole);
    for (const row of document.querySelectorAll("#headline tr[data-arm]")) {
      const arm = arms.find((arm) => tidy(arm.arm) === tidy(row.dataset.arm));
      if (!arm) continue;
      row.classList.add("pick");
      row.title = "show in the charts";
      row.addEventListener("click", () => choose(arm.arm));
    }
    panel.addEventListener("keydown", (event) => {
      if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
      let [min, max] = shown;
      const span = max - min;
      if (event.key === "0") { min = 0; max = end; }
      else if (event.key === "+" || event.key === "=") { min += span / 4; max -= span / 4; }
      else if (event.key === "-") { min -= span / 2; max += span / 2; }
      else if (event.key === "ArrowLeft") { const by = Math.min(span / 4, min); min -= by; max -= by; }
      else if (event.key === "ArrowRight") { const by = Math.min(span / 4, end - max); min += by; max += by; }
      else return;
      event.preventDefault();
      zoom(min, max);
    });
    addEventListener("hashchange", fromAddress);
  }

  // x: decades of rarity, 0 is every operation, 1 is p90, 3 is p99.9.
  const NAMES = ["0", "p90", "p99", "p99.9", "p99.99", "p99.999"];
  const curveChart = (op) => {
    const curves = D.curves.filter((curve) => curve.op === op);
    if (!curves.length) return;
    el("curves").hidden = false;
    const box = make("div");
    box.className = "chart";
    box.append(make("h3", op + " latency"));
    el("curve-charts").append(box);
    const length = Math.max(...curves.map((curve) => curve.ns.length));
    const x = Array.from({ length }, (_, n) => n / D.points_per_decade);
    const rank = (curve) => chosen && curve.arm === chosen.arm ? 2 : curve.arm === D.baseline ? 1 : 0;
    let order = [];
    let chart = null;
    let focused = null;
    const size = () => onPaper() ? PAPER / 2 - 20 : Math.max(280, Math.min(box.clientWidth || 520, 680));
    const note = make("p", "");
    note.className = "sub";
    const legend = (name, at) => {
      const lines = curves.filter((curve) => curve.arm === name || (!name && rank(curve)));
      note.textContent = lines.map((curve) => curve.arm + (curve.arm === D.baseline ? " (baseline, dashed)" : "")
        + (at !== null && curve.ns[at] !== undefined ? ": " + time(curve.ns[at]) : "")).join("   \u00b7   ");
      if (at !== null) note.textContent = "p" + +((1 - Math.pow(10, -x[at])) * 100).toFixed(4) + "   " + note.textContent;
    };
    const draw = () => {
      if (chart) chart.destroy();
      order = [...curves].sort((a, b) => rank(a) - rank(b));
      chart = new uPlot({
        width: size(), height: 300, legend: { show: false }, padding: [null, 24, null, null],
        focus: { alpha: 0.35 },
        cursor: { drag: { x: false, y: false }, focus: { prox: 24 }, points: { show: false } },
        scales: { x: { time: false }, y: { distr: 3 } },
        series: [{}, ...order.map((curve) => ({
          label: curve.arm, points: { show: false }, width: rank(curve) === 2 ? 2.5 : rank(curve) ? 1.5 : 1,
          stroke: () => css(["others", "base", "accent"][rank(curve)]), dash: rank(curve) === 1 ? [4, 3] : undefined,
        }))],
        axes: [axis({ splits: () => NAMES.map((_, n) => n).filter((n) => n <= x[length - 1]), values: (_, ticks) => ticks.map((t) => NAMES[t]), size: 26 }),
          axis({ size: 60, values: (_, ticks) => ticks.map((v) => v && Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9 ? time(v) : "") })],
        hooks: {
          setSeries: [(u, n) => { focused = n ? order[n - 1].arm : null; }],
          setCursor: [(u) => {
            const away = u.cursor.idx === null || u.cursor.idx === undefined || u.cursor.left < 0;
            legend(away ? null : focused, away ? null : u.cursor.idx);
          }],
        },
      }, [x, ...order.map((curve) => x.map((_, n) => curve.ns[n] > 0 ? curve.ns[n] : null))], box);
      box.append(note);
      legend(null, null);
    };
    curveCharts.push(draw);
  };
  ["write", "read"].forEach(curveChart);

  // A run's own table is made of its column of the table of all runs when it is opened.
  const human = (name, value) => {
    if (!/^[0-9]+$/.test(value) || value < 1000) return "";
    return /_ns\b/.test(name) ? time(+value) : /bytes/.test(name) && +value >= 1048576 ? digits(+value / 1048576) + " MiB" : "";
  };
  const columnsOf = (n) => {
    const table = make("table");
    table.className = "columns";
    for (const line of [...el("columns").rows].slice(1)) {
      const row = table.insertRow();
      const name = line.cells[0].textContent.trim();
      const value = (line.cells.length === 2 ? line.cells[1] : line.cells[n + 1]).textContent.trim();
      row.append(make("th", name), make("td", value));
      const read = human(name, value);
      if (read) row.lastChild.append(make("i", read));
    }
    return table;
  };
  for (const run of document.querySelectorAll("details.run"))
    run.addEventListener("toggle", () => {
      if (!run.querySelector(".columns")) run.append(columnsOf(+run.dataset.n));
    });

  if (arms.length) {
    choose(chosen.arm);
    fromAddress();
  } else highlight();
  let timer = 0;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      resize();
      highlight();
    }, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const chart of charts) chart.redraw();
    if (timeline) timeline.draw();
    highlight();
  });
  // Paper is white and narrow, whatever the screen is.
  const paper = (on) => {
    document.documentElement.classList.toggle("paper", on);
    resize();
    highlight();
  };
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  document.documentElement.dataset.ready = "yes";
})();
