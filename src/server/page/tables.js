// ---- tiles, tables and the degrees
const kTiles = [
  ["Output", "tokens/s", now => short(now.tokensPerS), now => grouped(now.snapshot.totals.generated) + " so far"],
  ["Time per output token", "ms", now => now.tpotMs === null ? "–" : short(now.tpotMs), now => "mean of the last " + Math.round(now.overS) + " s"],
  ["Running", "", now => grouped(now.snapshot.num_running), now => grouped(now.snapshot.totals.finished) + " finished"],
  ["Waiting", "", now => grouped(now.snapshot.num_waiting), now => plural(now.snapshot.totals.preemptions, "preemption")],
  ["KV cache in use", "%", now => percent(now.kvMean).replace(" %", ""), now => percent(now.kvMin) + " to " + percent(now.kvMax)],
  ["Rows, busiest over mean", "", now => now.rowsGap === null ? "–" : now.rowsGap.toFixed(2), now => now.timeGap === null ? "1 is level" : "by time " + now.timeGap.toFixed(2)],
];

function buildTiles(list) {
  for (const [name, unit] of kTiles) {
    list.append(html("li", {}, html("span", {class: "name"}, name),
      html("span", {class: "value"}, html("span", {}, "–"), html("span", {class: "unit"}, unit)), html("span", {class: "note"}, "")));
  }
}

// The figures of the tiles, from the last ten seconds of the history.
function figuresOf(snapshot, rows) {
  const last = rows[rows.length - 1];
  const first = rows.find(row => row.t >= last.t - 10.5) || last;
  const overS = last.t - first.t, tokens = last.itl_count - first.itl_count;
  const shares = snapshot.instances.map(one => one.kv_used / Math.max(1, one.kv_blocks));
  const counts = snapshot.instances.map(one => one.rows);
  const mean = list => list.reduce((sum, one) => sum + one, 0) / Math.max(1, list.length);
  return {
    snapshot, overS,
    tokensPerS: overS > 0 ? (last.generated - first.generated) / overS : 0,
    tpotMs: tokens > 0 ? 1e3 * (last.itl_s - first.itl_s) / tokens : null,
    kvMean: mean(shares), kvMin: Math.min(...shares), kvMax: Math.max(...shares),
    rowsGap: mean(counts) > 0 ? Math.max(...counts) / mean(counts) : null,
    timeGap: snapshot.straggler_ratio > 0 ? snapshot.straggler_ratio : null,
  };
}

function showTiles(list, now) {
  kTiles.forEach(([, , value, note], i) => {
    setText(list.children[i].querySelector(".value span"), value(now));
    setText(list.children[i].querySelector(".note"), note(now));
  });
}

// As many rows as `rows`; each cell is text, or an element.
function fillTable(body, rows, makeRow) {
  while (body.children.length > rows.length) body.lastChild.remove();
  rows.forEach((row, i) => {
    if (!body.children[i]) body.append(html("tr", {}));
    const line = body.children[i];
    makeRow(line, row, i).forEach((cell, k) => {
      if (!line.children[k]) line.append(html(k === 0 ? "th" : "td", k === 0 ? {scope: "row"} : {}));
      if (typeof cell === "string") setText(line.children[k], cell);
      else line.children[k].replaceChildren(cell);
    });
  });
}

function showInstances(snapshot) {
  const details = document.querySelector(".cluster details");
  if (!details.open) return;
  fillTable(document.querySelector("#instance-table tbody"), snapshot.instances, (line, one, i) => [
    String(i), grouped(one.kv_used), grouped(one.kv_blocks), percent(one.kv_used / Math.max(1, one.kv_blocks)),
    grouped(one.kv_tokens), grouped(one.rows), grouped(one.sequences), grouped(one.routed)]);
}

function shareBar(request) {
  const bar = html("span", {class: "shares", role: "img", "aria-label": request.shards.map(([i, blocks]) => "instance " + i + ": " + plural(blocks, "block")).join(", ")});
  for (const [, blocks] of request.shards) bar.append(html("i", {style: "flex:" + Math.max(1, blocks) + ";background:" + (colorOf.has(request.id) ? requestColor(request.id) : "var(--h4)")}));
  return bar;
}

function showRequests(snapshot, view) {
  const body = document.querySelector("#request-table tbody");
  const list = snapshot.requests.slice(0, 12);
  setText(byId("requests-note"), snapshot.num_open > list.length ? list.length + " of " + grouped(snapshot.num_open) : "");
  if (list.length === 0) {
    body.replaceChildren(html("tr", {}, html("td", {class: "none", colspan: "8"}, "No request is open. Send one with the chat.")));
    return;
  }
  if (body.querySelector(".none")) body.replaceChildren();
  fillTable(body, list, (line, one) => {
    line.className = "pickable" + (view.picked === one.id ? " picked" : "");
    line.dataset.request = one.id;
    const name = html("span", {}, html("i", {class: "swatch", style: "background:" + (colorOf.has(one.id) ? requestColor(one.id) : "var(--h4)")}), "#" + one.id);
    return [name, grouped(one.tokens), grouped(one.tokens - one.prompt), String(one.shards.length), one.binding < 0 ? "–" : String(one.binding),
      one.state, duration(one.age_s), shareBar(one)];
  });
}

function showDegrees(parent, degrees) {
  const most = Math.max(1, ...degrees);
  const rows = degrees.map((count, degree) => ({count, degree})).filter(one => one.degree > 0 && (one.count > 0 || one.degree === 1));
  while (parent.children.length > rows.length) parent.lastChild.remove();
  rows.forEach(({count, degree}, i) => {
    if (!parent.children[i]) parent.append(html("div", {class: "degree"}, html("span", {}), html("span", {class: "bar"}), html("span", {})));
    const [name, bar, number] = parent.children[i].children;
    setText(name, String(degree));
    bar.style.width = 100 * count / most + "%";
    bar.style.background = degree > 1 ? "var(--s0)" : "var(--h4)";
    setText(number, grouped(count));
  });
}
