// ---- the last minutes as lines
const kWindowS = 300;
const kShortestWindowS = 60;

// Rates between rows of the history, whose counters only rise: [{t, value}].
const rates = (rows, field) => rows.slice(1).map((row, i) =>
  ({t: row.t, value: Math.max(0, row[field] - rows[i][field]) / Math.max(1e-3, row.t - rows[i].t)}));
// Mean time between the tokens of a request; nothing where there was none.
const tokenTimes = rows => rows.slice(1).map((row, i) => {
  const count = row.itl_count - rows[i].itl_count;
  return {t: row.t, value: count > 0 ? 1e3 * (row.itl_s - rows[i].itl_s) / count : null};
});
const points = (rows, field, factor = 1) => rows.map(row => ({t: row.t, value: factor * row[field]}));

const kCharts = [
  {name: "Output tokens per second", color: "s0", unit: "tokens/s", lines: rows => [{name: "output", points: rates(rows, "generated"), area: true}]},
  {name: "Time per output token", color: "s3", unit: "ms", lines: rows => [{name: "mean", points: tokenTimes(rows)}]},
  {name: "Requests", color: "s2", unit: "", whole: true, legend: true,
    lines: rows => [{name: "running", points: points(rows, "running"), area: true}, {name: "waiting", color: "s1", points: points(rows, "waiting")}]},
  {name: "KV cache in use", color: "s5", unit: "%", most: 100, legend: true,
    lines: rows => [{name: "mean", points: points(rows, "kv_mean", 100)},
      {name: "spread", color: "s5", band: [points(rows, "kv_min", 100), points(rows, "kv_max", 100)]}]},
];

class Chart {
  constructor(spec, parent) {
    this.spec = spec;
    this.svg = svg("svg", {role: "img", "aria-label": spec.name});
    this.caption = html("figcaption", {}, html("span", {}, spec.name));
    parent.append(html("figure", {class: "card"}, this.caption, this.svg));
    this.svg.addEventListener("pointermove", event => this.point(event));
    this.svg.addEventListener("pointerleave", () => { hideTip(); if (this.cursor) this.cursor.remove(); });
    new ResizeObserver(() => this.rows && this.draw()).observe(this.svg.parentNode);
    if (spec.legend) {
      const legend = html("span", {class: "legend"});
      for (const line of spec.lines([])) {
        legend.append(html("span", {}, html("i", {style: "background:var(--" + (line.color || spec.color) + ");opacity:" + (line.band ? 0.35 : 1)}), line.name));
      }
      this.caption.append(legend);
    }
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const spec = this.spec, width = Math.max(200, this.svg.parentNode.clientWidth - 36), height = 150;
    const lines = spec.lines(this.rows);
    const all = lines.flatMap(line => line.band ? line.band[1] : line.points).map(point => point.value).filter(value => value !== null);
    let most = niceCeiling(Math.max(...all, 0) * 1.04);
    if (spec.whole) most = Math.max(4, most);
    if (spec.most) most = Math.min(spec.most, Math.max(most, spec.most / 20));
    const now = this.rows.length ? this.rows[this.rows.length - 1].t : 0;
    // A young server's minute is not squeezed into a corner.
    this.windowS = Math.min(kWindowS, Math.max(kShortestWindowS, this.rows.length ? now - this.rows[0].t : 0));
    this.scale = {
      left: 38, right: width - 4, top: 6, bottom: height - 20,
      x: t => this.scale.right - (now - t) / this.windowS * (this.scale.right - this.scale.left),
      y: value => this.scale.bottom - value / most * (this.scale.bottom - this.scale.top),
    };
    this.lines = lines;
    const parts = this.axes(most);
    for (const line of lines) parts.push(...this.line(line, line.color || spec.color));
    this.svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    this.svg.setAttribute("height", height);
    this.svg.replaceChildren(...parts);
    const last = lines[0].points.length ? lines[0].points[lines[0].points.length - 1].value : null;
    this.svg.setAttribute("aria-label", spec.name + (last === null ? ": nothing yet" : ": " + short(last) + " " + spec.unit + " now, at most " + short(Math.max(...all, 0)) + " in the last " + duration(this.windowS)));
  }

  axes(most) {
    const s = this.scale, parts = [];
    for (const part of [0, 0.5, 1]) {
      const y = s.y(most * part).toFixed(1);
      parts.push(svg("line", {class: "gridline", x1: s.left, x2: s.right, y1: y, y2: y}),
        svg("text", {x: s.left - 6, y: +y + 4, "text-anchor": "end"}, short(most * part)));
    }
    parts.push(svg("text", {class: "faint", x: s.left, y: s.bottom + 16}, duration(this.windowS) + " ago"),
      svg("text", {class: "faint", x: s.right, y: s.bottom + 16, "text-anchor": "end"}, "now"));
    return parts;
  }

  line(line, color) {
    const s = this.scale, inside = point => s.x(point.t) >= s.left - 1;
    const at = point => s.x(point.t).toFixed(1) + " " + s.y(point.value).toFixed(1);
    if (line.band) {
      const low = line.band[0].filter(inside), high = line.band[1].filter(inside);
      if (low.length < 2) return [];
      return [svg("path", {class: "area", fill: "var(--" + color + ")", d: "M" + high.map(at).join("L") + "L" + low.reverse().map(at).join("L") + "Z"})];
    }
    const runs = [[]];
    for (const point of line.points.filter(inside)) {
      if (point.value === null) runs.push([]);
      else runs[runs.length - 1].push(point);
    }
    const parts = [];
    for (const run of runs.filter(one => one.length > 0)) {
      const path = "M" + run.map(at).join("L") + (run.length === 1 ? "h.1" : "");
      if (line.area) {
        parts.push(svg("path", {class: "area", fill: "var(--" + color + ")",
          d: path + "L" + s.x(run[run.length - 1].t).toFixed(1) + " " + s.bottom + "L" + s.x(run[0].t).toFixed(1) + " " + s.bottom + "Z"}));
      }
      parts.push(svg("path", {class: "line", stroke: "var(--" + color + ")", d: path}));
    }
    return parts;
  }

  point(event) {
    if (!this.scale || !this.rows.length) return;
    const box = this.svg.getBoundingClientRect(), x = event.clientX - box.left;
    let nearest = null;
    for (const row of this.rows) if (nearest === null || Math.abs(this.scale.x(row.t) - x) < Math.abs(this.scale.x(nearest) - x)) nearest = row.t;
    if (this.cursor) this.cursor.remove();
    const at = this.scale.x(nearest).toFixed(1);
    this.cursor = svg("line", {class: "cursor", x1: at, x2: at, y1: this.scale.top, y2: this.scale.bottom});
    this.svg.append(this.cursor);
    const value = list => { const found = list.find(one => one.t === nearest); return found && found.value !== null ? short(found.value) : "–"; };
    const words = this.lines.map(line => line.name + "  " + (line.band ? value(line.band[0]) + " to " + value(line.band[1]) : value(line.points)) + " " + this.spec.unit);
    const ago = this.rows[this.rows.length - 1].t - nearest;
    showTip((ago < 0.5 ? "now" : Math.round(ago) + " s ago") + "\n" + words.join("\n"), event);
  }
}
