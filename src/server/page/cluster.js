// ---- the cluster: KV in use upwards, rows downwards, a column per instance; long requests as
// segments in one colour, joined by ribbons across the instances that hold them.
const kNumLongMax = 14;

// What is drawn, in shares: of an instance's KV blocks, and of rows.
function sceneOf(snapshot) {
  const instances = snapshot.instances;
  const capacity = Math.max(1, ...instances.map(one => one.kv_blocks));
  const long = snapshot.requests
    .filter(one => one.shards.length > 1 || one.shards.some(([, blocks]) => blocks >= 0.02 * capacity))
    .slice(0, kNumLongMax)
    .sort((a, b) => a.id - b.id);
  assignColors(long.map(one => one.id));
  const segments = new Map();
  const columns = instances.map(one => ({kv: one.kv_used / Math.max(1, one.kv_blocks), rows: one.rows}));
  for (const request of long) {
    for (const [instance, blocks] of request.shards) {
      if (!columns[instance] || blocks === 0) continue;
      const size = Math.min(blocks / Math.max(1, instances[instance].kv_blocks), columns[instance].kv);
      segments.set(request.id + ":" + instance, {request: request.id, instance, size});
    }
  }
  const mean = key => columns.reduce((sum, one) => sum + one[key], 0) / Math.max(1, columns.length);
  return {
    columns, segments, long: new Map(long.map(one => [one.id, one])),
    kvMean: mean("kv"), rowsMean: mean("rows"),
    kvMax: niceShare(Math.max(...columns.map(one => one.kv), 0)),
    rowsMax: Math.max(4, niceCeiling(Math.max(...columns.map(one => one.rows), 0))),
  };
}
const inThousands = tokens => tokens < 1000 ? String(tokens) : +(tokens / 1000).toPrecision(2) + "k";
const niceShare = share => [0.02, 0.05, 0.1, 0.25, 0.5].find(one => share <= 0.94 * one) || 1;

// Between two scenes; what is missing in one of them grows from nothing or shrinks to it.
function between(from, to, t) {
  const mix = (a, b) => a + (b - a) * t;
  const segments = new Map();
  for (const [key, segment] of to.segments) {
    const before = from.segments.get(key);
    segments.set(key, {...segment, size: mix(before ? before.size : 0, segment.size)});
  }
  for (const [key, segment] of from.segments) {
    if (!to.segments.has(key) && t < 1 && segment.size > 1e-6) segments.set(key, {...segment, size: mix(segment.size, 0)});
  }
  const columns = to.columns.map((column, i) => {
    const before = from.columns[i] || {kv: 0, rows: 0};
    return {kv: mix(before.kv, column.kv), rows: mix(before.rows, column.rows)};
  });
  const scene = {...to, columns, segments};
  for (const key of ["kvMean", "rowsMean", "kvMax", "rowsMax"]) scene[key] = mix(from[key], to[key]);
  return scene;
}

class ClusterView {
  constructor(stage) {
    this.stage = stage;
    this.svg = svg("svg", {role: "img", "aria-labelledby": "cluster-words"});
    this.layers = {};
    for (const name of ["grid", "tanks", "ribbons", "bars", "marks", "text"]) {
      this.layers[name] = svg("g", {"data-layer": name});
      this.svg.append(this.layers[name]);
    }
    this.pool = {};  // key -> element, of all layers
    stage.append(this.svg);
    this.shown = null;
    this.snapshot = null;
    this.picked = null;
    new ResizeObserver(() => this.shown && this.draw(this.shown)).observe(stage);
    stage.addEventListener("pointermove", event => this.point(event));
    stage.addEventListener("pointerleave", () => { hideTip(); this.pick(null); });
  }

  show(snapshot) {
    this.snapshot = snapshot;
    const target = sceneOf(snapshot);
    const from = this.shown;
    const still = !from || from.columns.length !== target.columns.length || document.hidden ||
      matchMedia("(prefers-reduced-motion: reduce)").matches;
    cancelAnimationFrame(this.frame);
    if (still) {
      this.draw(target);
      return;
    }
    const start = performance.now(), length = 600;
    const step = () => {
      const t = Math.min(1, (performance.now() - start) / length);
      this.draw(between(from, target, 1 - Math.pow(1 - t, 3)));
      if (t < 1) this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
  }

  geometry(scene) {
    const width = Math.max(240, this.stage.clientWidth), narrow = width < 560;
    const left = 40, right = 2, top = 10, count = scene.columns.length;
    const kvHeight = narrow ? 210 : 290, rowsHeight = narrow ? 74 : 96, strip = 24;
    const pitch = (width - left - right) / Math.max(1, count);
    const share = count <= 4 ? 0.5 : count <= 8 ? 0.58 : count <= 16 ? 0.66 : 0.76;
    const bar = Math.min(pitch * share, 110);
    const base = top + kvHeight;
    return {
      width, height: base + strip + rowsHeight + 22, left, right: width - right, top, base, strip, bar, pitch, count,
      rowsTop: base + strip, rowsHeight, kvHeight,
      x: i => left + pitch * i + (pitch - bar) / 2,
      kv: share => kvHeight * share / scene.kvMax,
      rows: rows => rowsHeight * Math.min(1, rows / scene.rowsMax),
    };
  }

  // The element of this key, made when there is none yet.
  element(key, layer, name, attributes, text) {
    this.used.add(key);
    let element = this.pool[key];
    if (!element) {
      element = this.pool[key] = svg(name, {});
      this.layers[layer].append(element);
    }
    for (const one in attributes) {
      const value = String(attributes[one]);
      if (element.getAttribute(one) !== value) element.setAttribute(one, value);
    }
    if (text !== undefined) setText(element, text);
    return element;
  }

  draw(scene) {
    this.shown = scene;
    this.used = new Set();
    const g = this.g = this.geometry(scene);
    this.svg.setAttribute("viewBox", "0 0 " + g.width + " " + g.height);
    this.svg.setAttribute("height", g.height);
    this.drawGrid(scene, g);
    const places = this.drawColumns(scene, g);
    this.drawRibbons(scene, g, places);
    for (const key in this.pool) {
      if (this.used.has(key)) continue;
      this.pool[key].remove();
      delete this.pool[key];
    }
  }

  drawGrid(scene, g) {
    for (const quarter of [0, 1, 2, 3, 4]) {
      const y = (g.base - g.kvHeight * quarter / 4).toFixed(1);
      this.element("grid" + quarter, "grid", "line", {class: "gridline", x1: g.left - 4, x2: g.right, y1: y, y2: y});
      if (quarter % 2 === 0) {
        const share = scene.kvMax * quarter / 4;
        const label = (share < 0.1 ? +(100 * share).toFixed(1) : Math.round(100 * share)) + "%";
        this.element("tick" + quarter, "text", "text", {x: g.left - 8, y: +y + 4, "text-anchor": "end"}, label);
      }
    }
    const bottom = g.rowsTop + g.rowsHeight;
    this.element("rows-end", "grid", "line", {class: "gridline", x1: g.left - 4, x2: g.right, y1: bottom, y2: bottom});
    this.element("rows-tick", "text", "text", {x: g.left - 8, y: bottom + 4, "text-anchor": "end"}, short(Math.round(scene.rowsMax)));
    this.element("rows-zero", "text", "text", {x: g.left - 8, y: g.rowsTop + 10, "text-anchor": "end"}, "0");
    this.element("rows-name", "text", "text", {x: g.left, y: bottom + 16, class: "faint"}, "rows in a step");
    if (g.count > 1) {
      const y = (g.base - g.kv(scene.kvMean)).toFixed(1), rowsY = (g.rowsTop + g.rows(scene.rowsMean)).toFixed(1);
      this.element("kv-mean", "marks", "line", {class: "mean", x1: g.left, x2: g.right, y1: y, y2: y});
      this.element("rows-mean", "marks", "line", {class: "mean", x1: g.left, x2: g.right, y1: rowsY, y2: rowsY});
    }
  }

  // Returns where each request's segments are: request -> [{instance, top, bottom}].
  drawColumns(scene, g) {
    const places = new Map();
    const byColumn = scene.columns.map(() => []);
    for (const segment of scene.segments.values()) if (byColumn[segment.instance]) byColumn[segment.instance].push(segment);
    const every = Math.ceil(30 / g.pitch);
    scene.columns.forEach((column, i) => {
      const x = g.x(i).toFixed(1), bar = g.bar.toFixed(1), round = Math.min(4, g.bar / 4);
      this.element("tank" + i, "tanks", "rect", {class: "tank", x, width: bar, y: g.top, height: g.kvHeight, rx: round});
      let y = g.base, left = column.kv;
      byColumn[i].sort((a, b) => a.request - b.request);
      for (const segment of byColumn[i]) {
        const height = g.kv(segment.size), top = y - height;
        left -= segment.size;
        this.drawSegment(scene, segment, {x, bar, top, height, round});
        if (!places.has(segment.request)) places.set(segment.request, []);
        places.get(segment.request).push({instance: i, top, bottom: y});
        y = top;
      }
      const others = Math.max(0, g.kv(left));
      this.element("others" + i, "bars", "rect",
        {class: "others", "data-bar": "kv", x, width: bar, y: (y - others).toFixed(1), height: others.toFixed(1), rx: Math.min(round, others / 2)});
      const rows = g.rows(column.rows);
      this.element("rows" + i, "bars", "rect",
        {class: "rows", "data-bar": "rows", x, width: bar, y: g.rowsTop, height: rows.toFixed(1), rx: Math.min(round, rows / 2)});
      if (i % every === 0) {
        this.element("name" + i, "text", "text",
          {x: (+x + g.bar / 2).toFixed(1), y: g.base + 16, "text-anchor": "middle", class: "strong"}, String(i));
      }
    });
    return places;
  }

  drawSegment(scene, segment, box) {
    const key = segment.request + ":" + segment.instance;
    const picked = this.picked === segment.request ? " picked" : "";
    this.element("segment" + key, "bars", "rect", {
      class: "segment" + picked, "data-request": segment.request, x: box.x, width: box.bar,
      y: box.top.toFixed(1), height: Math.max(0, box.height).toFixed(1), rx: Math.min(box.round, 3), fill: requestColor(segment.request),
    });
    const request = scene.long.get(segment.request), middle = +box.x + box.bar / 2;
    if (!request || box.height < 9) return;
    const runsHere = request.binding === segment.instance && box.bar > 9;
    if (runsHere) {
      this.element("binding" + key, "marks", "circle", {
        class: "binding", cx: box.bar > 60 && box.height > 17 ? (+box.x + 13).toFixed(1) : middle.toFixed(1),
        cy: (box.top + box.height / 2).toFixed(1), r: Math.min(4.5, box.bar / 3, box.height / 2.4).toFixed(1),
      });
    }
    if (box.height > 17 && box.bar > (runsHere ? 60 : 38)) {
      const share = request.shards.find(([instance]) => instance === segment.instance);
      const tokens = share ? inThousands(share[1] * this.snapshot.block_size) : "";
      this.element("label" + key, "text", "text",
        {class: "label", x: (middle + (runsHere ? 7 : 0)).toFixed(1), y: (box.top + box.height / 2 + 4).toFixed(1)}, tokens);
    }
  }

  drawRibbons(scene, g, places) {
    for (const [request, list] of places) {
      list.sort((a, b) => a.instance - b.instance);
      for (let i = 0; i + 1 < list.length; ++i) {
        const a = list[i], b = list[i + 1];
        const x1 = g.x(a.instance) + g.bar, x2 = g.x(b.instance), bend = Math.min((x2 - x1) / 2, 70);
        const at = (...numbers) => numbers.map(one => one.toFixed(1)).join(" ");
        const path = "M" + at(x1, a.top) + "C" + at(x1 + bend, a.top, x2 - bend, b.top, x2, b.top) +
          "L" + at(x2, b.bottom) + "C" + at(x2 - bend, b.bottom, x1 + bend, a.bottom, x1, a.bottom) + "Z";
        this.element("ribbon" + request + ":" + a.instance, "ribbons", "path", {
          class: "ribbon" + (this.picked === request ? " picked" : ""), "data-request": request, d: path, fill: requestColor(request),
        });
      }
    }
  }

  // Dims all other requests.
  pick(request) {
    if (this.picked === request) return;
    this.picked = request;
    this.stage.classList.toggle("picks", request !== null);
    for (const element of this.svg.querySelectorAll("[data-request]")) {
      element.classList.toggle("picked", +element.dataset.request === request);
    }
    for (const row of document.querySelectorAll("#request-table tr.pickable")) {
      row.classList.toggle("picked", +row.dataset.request === request);
    }
  }

  point(event) {
    const mark = event.target.closest && event.target.closest("[data-request]");
    const request = mark && this.shown.long.get(+mark.dataset.request);
    this.pick(request ? request.id : null);
    if (request) {
      showTip(requestWords(request), event);
      return;
    }
    const box = this.svg.getBoundingClientRect();
    const i = Math.floor((event.clientX - box.left - this.g.left) / this.g.pitch);
    const one = this.snapshot.instances[i];
    if (one) showTip(instanceWords(i, one), event);
    else hideTip();
  }
}

function requestWords(request) {
  const lines = ["Request " + request.id + ", " + grouped(request.tokens) + " tokens",
    request.state + ", degree " + request.shards.length + (request.binding >= 0 ? ", rows run on instance " + request.binding : "")];
  if (request.shards.length <= 8) for (const [instance, blocks] of request.shards) lines.push("instance " + instance + ": " + plural(blocks, "block"));
  return lines.join("\n");
}

function instanceWords(i, one) {
  return "Instance " + i + "\n" + grouped(one.kv_used) + " of " + plural(one.kv_blocks, "KV block") + ", " +
    percent(one.kv_used / Math.max(1, one.kv_blocks)) + "\n" + plural(one.rows, "row") + " in the last step\n" +
    plural(one.sequences, "sequence") + " bound to it";
}

// What the picture shows, for readers of words.
function clusterWords(snapshot) {
  const shares = snapshot.instances.map(one => one.kv_used / Math.max(1, one.kv_blocks));
  const spread = snapshot.requests.filter(one => one.shards.length > 1).length;
  let words = plural(shares.length, "instance") + "; KV in use " + percent(Math.min(...shares)) + " to " + percent(Math.max(...shares));
  words += spread === 0 ? "; no request is spread." : "; " + plural(spread, "request") + (spread === 1 ? " is" : " are") + " spread over several instances.";
  return words;
}
