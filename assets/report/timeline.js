"use strict";
// The timeline: lanes of tenants on a canvas, drawn from spans packed by src/report/timeline.rs.
// `tools` brings what it shares with the charts: css, number, digits, bounds (left and width of
// their plots in pixels), end (seconds) and zoom, which it calls where somebody drags.
const makeTimeline = (host, readout, tools) => {
  const { css, number, digits, bounds, zoom } = tools;
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  host.append(canvas);
  const pen = canvas.getContext("2d");
  const HEIGHT = { flush: 6, compaction: 5, stall: 7, memtable: 20 };
  const GAP = 7, AXIS = 22, ALL = 15;
  const TONE = { flush: "accent", compaction: "compaction", memtable: "memtable-fill" };
  const NAMES = ["flushes", "compactions", "stalled writes"];
  let data = null;
  let range = [0, 1];
  let drag = null;
  let hovered = null;

  // Begin and end of each span in seconds.
  const unpackSpans = (text, unit) => {
    const out = [];
    let at = 0, n = 0, shift = 0, gap = null;
    for (const letter of text) {
      const v = number(letter);
      n += (v & 31) << shift;
      shift += 5;
      if (v > 31) continue;
      if (gap === null) gap = n;
      else {
        out.push([(at + gap) * unit, (at + gap + n) * unit]);
        at += gap + n;
        gap = null;
      }
      n = shift = 0;
    }
    return out;
  };
  const unpackLevels = (levels) => ({ max: levels.max, points: [...levels.points].map((letter) => number(letter) / 63) });

  const show = (timeline) => {
    hovered = null;
    if (!timeline) {
      data = null;
      readout.textContent = "This arm has no timeline here: events.jsonl has those of all arms.";
      draw();
      return;
    }
    const end = timeline.end_ns / 1e9;
    data = { end, all: timeline.all.map(unpackLevels), note: timeline.note, marks: [], lanes: [] };
    let top = 4;
    data.allTops = data.all.map((levels) => { const at = top; if (levels.max) top += ALL + 2; return at; });
    data.allEnd = top += GAP;
    for (const lane of timeline.lanes) {
      const rows = [];
      let y = top, stall = null;
      for (const row of lane.rows) {
        const kind = TONE[row.kind] ? row.kind : "stall";
        if (kind === "stall" && stall === null) stall = y;
        rows.push({ kind, cause: kind === "stall" ? row.kind : "", y: kind === "stall" ? stall : y, height: HEIGHT[kind],
          spans: unpackSpans(row.spans, end / timeline.columns) });
        if (kind !== "stall") y += HEIGHT[kind] + 1;
      }
      if (stall !== null) y = stall + HEIGHT.stall + 1;
      const memtable = unpackLevels(lane.memtable);
      memtable.y = y;
      y += memtable.max ? HEIGHT.memtable : 0;
      y = Math.max(y, top + 16);
      data.lanes.push({ name: lane.name, top, bottom: y, rows, memtable });
      top = y + GAP;
    }
    data.bottom = top;
    data.marks = timeline.marks.map((mark) => ({ ...mark, at: (mark.at + 0.5) * end / timeline.columns }));
    canvas.setAttribute("aria-label", "Timeline of " + timeline.arm + ": " + timeline.lanes.map((lane) => lane.name).join(", "));
    readout.textContent = data.note;
    draw();
  };

  const xOf = (t) => { const { left, width } = bounds(); return left + (t - range[0]) / (range[1] - range[0]) * width; };
  const timeOf = (x) => { const { left, width } = bounds(); return range[0] + (x - left) / width * (range[1] - range[0]); };

  const area = (levels, top, height, tone) => {
    const count = levels.points.length;
    if (!levels.max || !count) return;
    pen.fillStyle = css(tone);
    for (let n = 0; n < count; n++) {
      const x = Math.round(xOf(n * data.end / count)), next = Math.round(xOf((n + 1) * data.end / count));
      const h = levels.points[n] * height;
      if (h > 0) pen.fillRect(x, top + height - h, Math.max(1, next - x), h);
    }
  };

  // At most one rectangle a pixel and row, however many spans there are.
  const spans = (row) => {
    pen.fillStyle = css(TONE[row.kind] || "bad");
    let last = -1;
    for (const [from, to] of row.spans) {
      if (to < range[0] || from > range[1]) continue;
      const x = xOf(from), end = Math.max(xOf(to), x + 1);
      if (Math.floor(end) <= last) continue;
      pen.fillRect(x, row.y, end - x, row.height);
      last = Math.floor(end);
    }
  };

  const steps = (span) => {
    const raw = span * 62 / bounds().width, power = Math.pow(10, Math.floor(Math.log10(raw)));
    return power * ([1, 2, 5, 10].find((n) => n * power >= raw) || 10);
  };

  const draw = () => {
    const ratio = devicePixelRatio || 1;
    const { left, width } = bounds();
    const total = Math.max(280, Math.min(host.clientWidth, left + width + 24));
    const bottom = data ? data.bottom : 30;
    const height = bottom + AXIS;
    canvas.width = Math.round(total * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = total + "px";
    canvas.style.height = height + "px";
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, total, height);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    if (data) {
      const step = steps(range[1] - range[0]);
      pen.fillStyle = css("soft");
      data.lanes.forEach((lane, n) => { if (n % 2 === 0) pen.fillRect(0, lane.top - 3, left + width, lane.bottom - lane.top + 6); });
      pen.textAlign = "center";
      for (let n = Math.ceil(range[0] / step); n * step <= range[1] + 1e-9; n++) {
        pen.fillStyle = css("grid");
        pen.fillRect(Math.round(xOf(n * step)), 0, 1, bottom);
        pen.fillStyle = css("muted");
        pen.fillText(+(n * step).toPrecision(6) + " s", xOf(n * step), bottom + 12);
      }
      label("all", (data.allTops[0] + data.allEnd - GAP) / 2, left);
      for (const lane of data.lanes) label(lane.name, (lane.top + lane.bottom) / 2, left);
      pen.save();
      pen.beginPath();
      pen.rect(left, 0, width, bottom);
      pen.clip();
      ["accent", "compaction", "bad"].forEach((tone, n) => area(data.all[n], data.allTops[n], ALL, tone));
      for (const lane of data.lanes) {
        area(lane.memtable, lane.memtable.y, HEIGHT.memtable, "memtable-fill");
        for (const row of lane.rows) spans(row);
      }
      for (const mark of data.marks) {
        const lane = mark.lane === null ? null : data.lanes[mark.lane];
        pen.fillStyle = css(mark.kind === "fault" ? "fault" : "muted");
        const top = lane ? lane.top - 2 : 0, end = lane ? lane.bottom + 2 : bottom;
        pen.fillRect(xOf(mark.at) - 1, top, 2, end - top);
      }
      if (drag && drag.to !== null) {
        pen.fillStyle = css("accent-fill");
        pen.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), bottom);
      } else if (hovered !== null) {
        pen.fillStyle = css("muted");
        pen.fillRect(hovered, 0, 1, bottom);
      }
      pen.restore();
    }
    host.dataset.zoom = range.map((t) => t.toFixed(3)).join(",");
  };

  const label = (name, y, left) => {
    pen.fillStyle = css("muted");
    pen.textAlign = "right";
    const text = pen.measureText(name).width > left - 10 ? name.replace(/^(tree [0-9]+ of [0-9]+) tenants$/, "$1") : name;
    let shown = text;
    while (shown.length > 3 && pen.measureText(shown).width > left - (shown === text ? 10 : 22)) shown = shown.slice(0, -1);
    pen.fillText(shown === text ? text : shown + "\u2026", left - 6, y);
  };

  const seconds = (t) => +t.toFixed(t < 10 ? 4 : 3) + " s";
  const levelAt = (levels, t) => levels.points[Math.min(levels.points.length - 1, Math.floor(t / data.end * levels.points.length))] * levels.max || 0;
  const tell = (x, y) => {
    const t = timeOf(x), slack = (range[1] - range[0]) / bounds().width * 2;
    const lane = data.lanes.find((lane) => y >= lane.top - 3 && y < lane.bottom + 4);
    if (t < range[0] || t > range[1]) return data.note;
    const parts = [seconds(t)];
    if (!lane) {
      if (y >= data.allEnd) return data.note;
      parts.push("everybody");
      data.all.forEach((levels, n) => parts.push(NAMES[n] + " under way: " + digits(levelAt(levels, t) / 1000)));
      return parts.join("   \u00b7   ");
    }
    parts.push(lane.name);
    for (const row of lane.rows) {
      const span = row.spans.find(([from, to]) => t >= from - slack && t <= to + slack);
      if (span) parts.push(row.kind + (row.cause ? " (" + row.cause.replace("_", " ") + ")" : "") + " " + seconds(span[0]) + " .. " + seconds(span[1]));
    }
    if (lane.memtable.max) parts.push("memtable " + digits(levelAt(lane.memtable, t) / 1024) + " KiB");
    const laneNumber = data.lanes.indexOf(lane);
    for (const mark of data.marks)
      if ((mark.lane === null || mark.lane === laneNumber) && Math.abs(mark.at - t) <= slack * 2) parts.push(mark.note);
    return parts.join("   \u00b7   ");
  };

  const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !data) return;
    const { left, width } = bounds();
    drag = { from: Math.max(left, Math.min(left + width, place(event)[0])), to: null };
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!data) return;
    const [x, y] = place(event);
    const { left, width } = bounds();
    if (drag) drag.to = Math.max(left, Math.min(left + width, x));
    hovered = x >= left && x <= left + width ? x : null;
    readout.textContent = tell(x, y);
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    const done = drag;
    drag = null;
    if (done && done.to !== null && Math.abs(done.to - done.from) > 4)
      zoom(timeOf(Math.min(done.from, done.to)), timeOf(Math.max(done.from, done.to)));
    else draw();
  });
  canvas.addEventListener("pointercancel", () => { drag = null; draw(); });
  canvas.addEventListener("pointerleave", () => {
    hovered = null;
    if (data) readout.textContent = data.note;
    draw();
  });
  canvas.addEventListener("dblclick", () => zoom(0, tools.end));
  return { show, draw, zoom: (min, max) => { range = [min, max]; draw(); } };
};
