// ---- asks for the cluster once a second and shows it
const kPollMs = 1000;

const session = {
  model: "",
  key: store(sessionStorage, "nanocp-key") || "",
  headers() { return this.key ? {Authorization: "Bearer " + this.key} : {}; },
};
const view = new ClusterView(byId("stage"));
const charts = kCharts.map(spec => new Chart(spec, byId("charts")));
buildTiles(byId("tiles"));
const chat = new Chat(session);
let history = [];

function legend() {
  const entry = (style, name, kind = "") => html("span", {}, html("i", {style, class: kind}), name);
  byId("cluster-legend").append(entry("background:linear-gradient(90deg,var(--s0) 50%,var(--s1) 50%)", "long requests"), entry("background:var(--h4)", "all others"),
    entry("background:var(--p6)", "rows"), entry("", "runs its rows", "dot"), entry("", "mean", "dash"));
}
legend();

function setLink(state, words) {
  byId("link").className = "link " + state;
  setText(byId("link").querySelector("span"), words);
}

function showFacts(snapshot) {
  const facts = byId("facts"), parts = [snapshot.model, "policy " + snapshot.policy, snapshot.device, "up to " + grouped(snapshot.max_model_len) + " tokens"];
  if (facts.dataset.shown === parts.join()) return;
  facts.dataset.shown = parts.join();
  facts.replaceChildren(html("b", {}, parts[0]), parts.slice(1).map(one => " · " + one).join(""));
  document.title = snapshot.model + " – NanoCP";
}

function show(snapshot) {
  session.model = snapshot.model;
  const fields = snapshot.history.fields;
  for (const values of snapshot.history.rows) history.push(Object.fromEntries(values.map((value, i) => [fields[i], value])));
  if (history.length && history[history.length - 1].t < history[0].t) history = history.slice(-1);
  history = history.filter(row => row.t >= history[history.length - 1].t - kWindowS - 5);
  showFacts(snapshot);
  view.show(snapshot);
  setText(byId("cluster-words"), clusterWords(snapshot));
  showInstances(snapshot);
  showRequests(snapshot, view);
  showDegrees(byId("degree-bars"), snapshot.degrees);
  if (history.length) {
    showTiles(byId("tiles"), figuresOf(snapshot, history));
    for (const chart of charts) chart.show(history);
  }
  setLink(snapshot.is_alive ? "on" : "off", snapshot.is_alive ? "live, up " + duration(snapshot.uptime_s) : "the engine has stopped");
  document.body.dataset.updates = +(document.body.dataset.updates || 0) + 1;
}

// Rows of the history that are here need not be sent again. A server that started anew has younger ones.
const since = () => history.length ? history[history.length - 1].t : -1;

async function poll() {
  const response = await fetch("cluster?since=" + since(), {headers: session.headers(), cache: "no-store", signal: AbortSignal.timeout(10000)});
  if (response.status === 401) {
    askKey(session.key ? "This key is not accepted." : "");
    setLink("off", "needs an API key");
    return false;
  }
  if (!response.ok) throw new Error(await errorText(response));
  const snapshot = await response.json();
  if (history.length && snapshot.uptime_s < history[history.length - 1].t - 1) {
    history = [];  // another server answers now
    return true;
  }
  show(snapshot);
  return true;
}

let failures = 0;
async function loop() {
  let goesOn = true;
  if (!document.hidden) {
    try {
      goesOn = await poll();
      failures = 0;
    } catch (error) {
      ++failures;
      setLink("off", "no answer, trying again" + (failures > 1 ? " (" + failures + ")" : ""));
      if (!(error instanceof TypeError) && error.name !== "TimeoutError") console.error(error);
    }
  }
  if (goesOn) setTimeout(loop, kPollMs * Math.min(8, 1 + failures));
}

function askKey(words) {
  const dialog = byId("key-dialog");
  setText(byId("key-wrong"), words);
  if (!dialog.open) dialog.showModal();
}
byId("key-form").addEventListener("submit", () => {
  session.key = byId("key-text").value;
  byId("key-text").value = "";
  store(sessionStorage, "nanocp-key", session.key);
  loop();
});
document.addEventListener("pointerover", event => {
  const row = event.target.closest && event.target.closest("tr.pickable");
  if (row) view.pick(+row.dataset.request);
  else if (event.target.closest && !event.target.closest("#stage")) view.pick(null);
});
loop();
