// The cluster page. One stream brings a picture and then its changes; `seen` is that picture, and every view is drawn
// from it. Elements are kept and changed in place, so that what is selected, focused or being typed stays.
"use strict";

const seen = { c: null, n: new Map(), u: new Map(), s: new Map(), t: new Map(), e: [] };
const MAX_EVENTS = 500;
const main = document.getElementById("main");
const $ = (id) => document.getElementById(id);

// ---- the token: given behind "#", kept for this tab only
function takeToken() {
  const given = /^#token=([^&]+)/.exec(location.hash);
  if (given) {
    sessionStorage.setItem("peer-token", decodeURIComponent(given[1]));
    history.replaceState(null, "", location.pathname + "#/");
  }
  return sessionStorage.getItem("peer-token");
}
let token = takeToken();
const headers = () => (token ? { Authorization: "Bearer " + token } : {});

// ---- the stream. fetch, not EventSource: that one can't send the token.
async function follow() {
  let wait = 200;
  for (;;) {
    try {
      const answer = await fetch("live", { headers: headers(), cache: "no-store" });
      if (answer.status === 401) {
        sessionStorage.removeItem("peer-token");
        token = null;
        return link("lost", (await answer.json()).message);
      }
      if (!answer.ok) throw new Error((await answer.json()).message);
      link("live", "live");
      lastHeard = Date.now();
      seen.e = [];
      wait = 200;
      await read(answer.body);
    } catch (error) {
      console.debug("stream:", error.message);
    }
    lost();
    await new Promise((later) => setTimeout(later, wait));
    wait = Math.min(wait * 2, 3000);
  }
}

async function read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  // The agent says something at least every 5 s.
  for (;;) {
    let timer;
    const late = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error("silence")), 15000); });
    const { value, done } = await Promise.race([reader.read(), late]).finally(() => clearTimeout(timer));
    if (done) return;
    lastHeard = Date.now();
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) take(event);
  }
}

function take(event) {
  let name = "", data = "";
  for (const line of event.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data += line.slice(5).trimStart();
  }
  if (!data) return;
  if (name === "happened") return happened(JSON.parse(data));
  if (name === "picture") {
    for (const kind of ["n", "u", "s", "t"]) seen[kind].clear();
    for (const group of groups.values()) group.clear();
  }
  for (const [key, value] of Object.entries(JSON.parse(data))) {
    if (key === "c") seen.c = value;
    else if (seen[key[0]] instanceof Map) place(key[0], key.slice(2), value);
  }
  if (name === "picture") stale.all = true;
  draw();
}

// The board's tasks by node ("" for none), and what has changed since its columns were drawn: with thousands of cards only
// those are drawn anew whose node, tasks or services have.
const groups = new Map();
const stale = { all: true, nodes: new Set(), services: new Set() };
const looks = (s) => s && [s.name, s.cpu, s.memory, isOpen(s)].join();

function place(kind, id, value) {
  const before = seen[kind].get(id);
  if (value === null) seen[kind].delete(id);
  else seen[kind].set(id, value);
  if (kind === "n" || kind === "u") {
    if (kind === "n" && !(before && value && before.name === value.name)) stale.all = true;
    stale.nodes.add(id);
  }
  if (kind === "s" && looks(before) !== looks(value)) stale.services.add(id);
  if (kind !== "t") return;
  for (const task of [before, value]) {
    if (!task || !onBoard(task)) continue;
    const node = task.node || "";
    if (!groups.has(node)) groups.set(node, new Map());
    if (task === value) groups.get(node).set(id, task);
    else groups.get(node).delete(id);
    stale.nodes.add(node);
  }
}

// What happened, newest first, each with a number of its own.
let count = 0;
function happened(events) {
  for (const event of events) seen.e.unshift(Object.assign(event, { n: ++count }));
  seen.e.length = Math.min(seen.e.length, MAX_EVENTS);
  draw();
}

function link(state, text) {
  document.body.dataset.link = state;
  set($("link"), "state", state);
  put($("link"), text);
}

// What is shown stays, and says of when it is.
let lastHeard = 0;
const lost = () => link("lost", lastHeard ? `this agent doesn't answer: what you see is as of ${timeOf(lastHeard)}; trying again` : "no answer from this agent: trying again");

// ---- drawing: at most once a frame
let due = false;
function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (seen.c) views();
  });
}

// Between a holder's end and the next one's beginning a majority is missed for a moment: no news.
const QUORUM_PATIENCE = 1500;
let quorumLost = 0;
function lacksQuorum() {
  if (seen.c.quorum) {
    quorumLost = 0;
    return false;
  }
  if (!quorumLost) {
    quorumLost = Date.now();
    setTimeout(draw, QUORUM_PATIENCE + 100);
  }
  return Date.now() - quorumLost > QUORUM_PATIENCE;
}

let shown = null;
function views() {
  const [, view = "", name = ""] = decodeURI(location.hash).split("/");
  const page = view + "/" + name;
  if (page !== shown) {
    main.replaceChildren();
    scrollTo(0, 0);
    shown = page;
    stale.all = true;
  }
  for (const a of document.querySelectorAll("nav a")) {
    const here = a.dataset.view === (view === "service" ? "services" : view === "node" || !view ? "cluster" : view);
    if (here) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  const wanted = [...seen.s.values()].reduce((sum, s) => sum + s.desired, 0);
  const running = [...seen.s.values()].reduce((sum, s) => sum + s.running, 0);
  put($("facts"), `${many(seen.n.size, "node")} · ${many(seen.s.size, "service")} · ${running} of ${many(wanted, "task")} running`
    + (lacksQuorum() ? " · no quorum: changes are kept and carried out when a majority is back" : ""));
  if (view === "services") services();
  else if (view === "service") service(name);
  else if (view === "node") node(name);
  else if (view === "electorate") electorate();
  else if (view === "events") eventsView();
  else cluster();
}

const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const order = new Intl.Collator(undefined, { numeric: true }).compare;
const byName = (map) => [...map.values()].sort((a, b) => order(a.name, b.name));
const tagOf = (image) => (image || "").split("@")[0].replace(/^.*\//, "");
const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const set = (element, name, value) => { if (element.dataset[name] !== value) element.dataset[name] = value; };

function make(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "hue") element.style.setProperty("--hue", value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Makes the children of `parent` those of `items`, in order, keeping the element of each key.
function list(parent, items, key, fresh, change) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let element = old.get(name);
    if (element) old.delete(name);
    else {
      element = fresh(item);
      element.dataset.key = name;
    }
    change(element, item);
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
  for (const element of old.values()) element.remove();
}

// One element of a view, made once.
function part(name, fresh) {
  let element = main.querySelector(`[data-part="${name}"]`);
  if (!element) {
    element = fresh();
    element.dataset.part = name;
    main.append(element);
  }
  return element;
}

// ---- tasks
const KINDS = { running: "good", failed: "bad", rejected: "bad", shutdown: "quiet", complete: "quiet" };
// Its node doesn't answer: what it last said of the task is all there is.
const isUnheard = (task) => !isOver(task) && ["down", "away"].includes((seen.n.get(task.node) || {}).status);
const kindOf = (task) => isUnheard(task) ? "quiet" : (task.desired === "shutdown" || task.desired === "remove") && task.phase === "running" ? "busy" : KINDS[task.phase] || "busy";
const isOver = (task) => ["complete", "shutdown", "failed", "rejected"].includes(task.phase);
const stateOf = (task) => (isUnheard(task) ? "unknown" : kindOf(task) === "busy" && task.phase === "running" ? "draining" : task.phase);
const stateText = (task) => (isUnheard(task) ? `unknown, last heard ${task.phase}` : stateOf(task));
// On the board: what is wanted, and what still runs. Slots that failed and have no successor yet stay in sight.
const onBoard = (task) => task.desired === "ready" || task.desired === "running" || !isOver(task);

function hueOf(text) {
  let hash = 7;
  for (const letter of text) hash = (hash * 31 + letter.charCodeAt(0)) >>> 0;
  return `hsl(${hash % 360} 60% 48%)`;
}

const nameOf = (task) => {
  const service = seen.s.get(task.service);
  return (service ? service.name : "removed") + (task.slot === null ? "" : "." + task.slot);
};

function taskCard(task) {
  const name = (seen.s.get(task.service) || { name: "" }).name;
  return make("li", { class: "task", hue: hueOf(name) }, make("span", { class: "tag" }), make("b"), " ", make("span"), make("span", { class: "why" }));
}

// What a card was last drawn from: a change replaces the object, so the same object needs no drawing.
const drawn = new WeakMap();

function fillCard(element, task) {
  const service = seen.s.get(task.service);
  const last = drawn.get(element);
  const unheard = isUnheard(task);
  if (last && last.task === task && last.service === service && last.unheard === unheard) return;
  drawn.set(element, { task, service, unheard });
  const kind = kindOf(task);
  set(element, "kind", kind);
  set(element, "state", stateOf(task));
  const rolling = service && isOpen(service);
  const age = rolling ? (task.current ? "new" : "old") : "";
  set(element, "age", age);
  const [tag, name, , why] = element.children;
  put(tag, tagOf(task.image) + (age ? ` (${age})` : ""));
  put(name, nameOf(task));
  put(element.children[2], stateText(task) + (task.attempt ? `, attempt ${task.attempt + 1}` : ""));
  element.children[2].className = "state-" + kind;
  put(why, task.error || (task.phase === "pending" && task.note) || "");
}

const bySlot = (a, b) => order((seen.s.get(a.service) || { name: "" }).name, (seen.s.get(b.service) || { name: "" }).name)
  || a.slot - b.slot || (a.id < b.id ? -1 : 1);

const tasksOf = (node) => [...(groups.get(node) || new Map()).values()].sort(bySlot);

// ---- the cluster
const NOWHERE = { id: "", name: "waiting for a node", status: "none", availability: "active", labels: {} };

function cluster() {
  const empty = part("empty", () => make("section", { class: "empty" },
    make("h2", {}, "No service yet"), make("p", {}, "Create one, on any node:"),
    make("pre", {}, make("code", {}, "peer service create --name web --replicas 3 --publish 8080:80 nginx"))));
  empty.hidden = seen.s.size > 0;
  rolloutsPart();
  const board = part("board", () => make("section", { class: "nodes", "aria-label": "Nodes" }));
  const homeless = (groups.get("") || new Map()).size > 0;
  if (stale.all || homeless !== (board.dataset.homeless === "true")) {
    const nodes = byName(seen.n);
    if (homeless) nodes.unshift(NOWHERE);
    set(board, "homeless", String(homeless));
    board.classList.toggle("many", nodes.length > 40);
    columns.clear();
    list(board, nodes, (node) => node.id, freshNode, (element, node) => {
      columns.set(node.id, element);
      fillNode(element, node, tasksOf(node.id));
    });
  } else {
    const moved = (task) => stale.services.has(task.service);
    if (stale.services.size) for (const [id, tasks] of groups) if ([...tasks.values()].some(moved)) stale.nodes.add(id);
    for (const id of stale.nodes) if (columns.has(id)) fillNode(columns.get(id), seen.n.get(id) || NOWHERE, tasksOf(id));
  }
  stale.all = false;
  stale.nodes.clear();
  stale.services.clear();
}

function lastError(s) {
  const failed = [...seen.t.values()].filter((task) => task.service === s.id && task.error).sort((a, b) => b.since - a.since);
  return failed.length ? `; ${failed[0].error}` : "";
}

// What turns over, and what has stopped doing so: first of all, since it waits for somebody.
function rolloutsPart() {
  const sheet = part("rollouts", () => make("ul", { class: "rollouts", "aria-label": "Updates under way" }));
  const open = byName(seen.s).filter(isOpen);
  sheet.hidden = !open.length;
  if (!open.length && !sheet.children.length) return;
  const done = open.length ? countDone() : new Map();
  list(sheet, open, (s) => s.id, (s) => make("li", {}, make("a", { href: "#/service/" + encodeURI(s.name) }, s.name), " ", make("span")), (element, s) => {
    const words = element.children[1];
    put(words, progressOf(s, done.get(s.id) || 0) + (s.rollout.state.endsWith("paused") ? lastError(s) : ""));
    words.className = rolloutClass(s);
  });
}

// The board's element of each node.
const columns = new Map();

function freshNode(node) {
  const title = node.id ? make("a", { href: "#/node/" + encodeURI(node.name) }) : make("span");
  return make("article", { class: "node" },
    make("div", { class: "head" }, make("h2", {}, title, make("span", { class: "marks" })), make("p"), make("p"), make("p"), gauge(), make("p"), gauge()),
    make("ul", { class: "tasks" }));
}

// What is reserved, and over it what is in use; the line above says the same in words.
const gauge = () => make("div", { class: "load", hidden: "" }, make("i"), make("i", { class: "used" }));

function fillGauge(line, bar, name, reserved, used, whole, text) {
  const of = whole || (used && used[1]);
  // An engine may have less than its machine: what is in use is the whole machine's.
  const apart = used && Math.abs(used[1] - of) > of / 10 ? ` of the machine's ${text(used[1])}` : "";
  const parts = [reserved ? `${text(reserved)} reserved` : "", used && !apart ? `${text(used[0])} used` : ""].filter(Boolean).join(", ");
  // Tasks that wait for a node reserve something of nothing.
  const said = [parts && (of ? `${parts} of ${text(of)}` : parts), apart && `${text(used[0])} used${apart}`].filter(Boolean).join(", ");
  put(line, said ? `${name} ${said}` : "");
  bar.hidden = !said || !of;
  const share = (part, all) => Math.min(100, (100 * part) / all || 0).toFixed(1) + "%";
  const widths = [share(reserved, of), used ? share(used[0], used[1]) : "0%"];
  widths.forEach((width, i) => { if (bar.children[i].style.width !== width) bar.children[i].style.width = width; });
}

function fillNode(element, node, tasks) {
  set(element, "status", node.status);
  set(element, "availability", node.availability);
  const [head, cards] = element.children;
  const [title, first, second, cpu, cpuBar, memory, memoryBar] = head.children;
  put(title.children[0], node.name);
  const marks = [node.holder && "leader", node.id === seen.c.self && "this node", node.availability !== "active" && node.availability].filter(Boolean);
  list(title.children[1], marks, (mark) => mark, (mark) => make("span", { class: "mark" }, mark), () => {});
  first.className = "status";
  set(first, "status", node.status);
  put(first, node.id ? statusOf(node) : "");
  const labels = Object.entries(node.labels).map(([key, value]) => `${key}=${value}`);
  put(second, [node.engine && `engine ${node.engine}`, node.cpus && many(Math.round(node.cpus / 1e9), "cpu"), size(node.memory), ...labels].filter(Boolean).join(" · "));
  const reserved = (what) => tasks.reduce((sum, task) => sum + ((seen.s.get(task.service) || {})[what] || 0), 0);
  const usage = seen.u.get(node.id) || {};
  // The engine counts in billionths of a processor, a machine's use in thousandths.
  const inBillionths = usage.cpu && usage.cpu.map((cpu) => cpu * 1e6);
  fillGauge(cpu, cpuBar, "cpu", reserved("cpu"), inBillionths, node.cpus, (cpus) => (cpus / 1e9).toFixed(1));
  fillGauge(memory, memoryBar, "memory", reserved("memory"), usage.memory, node.memory, gib);
  list(cards, tasks, (task) => task.id, taskCard, fillCard);
}

const heardOf = (node) => (node.status === "ready" ? "" : node.heard ? `, last heard ${timeOf(node.heard)}` : ", not heard since this agent started");
const statusOf = (node) => (node.status === "down" || node.status === "away" ? node.status : node.trouble ? "ready, engine unreachable: " + node.trouble : node.status === "suspect" ? "suspect: no answer for a moment" : node.status)
  + heardOf(node)
  + (node.blocked && Object.keys(node.blocked).length ? `; port ${Object.keys(node.blocked).join(", ")} is taken by something else here` : "");
const gib = (bytes) => (bytes < 2 ** 30 ? Math.round(bytes / 2 ** 20) + " MiB" : (bytes / 2 ** 30).toFixed(1) + " GiB");
const size = (bytes) => (bytes ? gib(bytes) : "");
// Of another day with its date.
const timeOf = (ms) => {
  const at = new Date(ms);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
};

// ---- services
const isDone = (task) => task.desired === "running" && task.current && task.phase === "running";

function countDone() {
  const done = new Map();
  for (const task of seen.t.values()) if (isDone(task)) done.set(task.service, (done.get(task.service) || 0) + 1);
  return done;
}

function services() {
  const done = countDone();
  const sheet = part("services", () => make("section", {}, make("h2", {}, "Services"), table("Name", "Mode", "Replicas", "Image", "Ports", "Update")));
  list(sheet.querySelector("tbody"), byName(seen.s), (s) => s.id,
    (s) => make("tr", {}, make("td", {}, make("a", { href: "#/service/" + encodeURI(s.name) }, s.name)), ...Array.from({ length: 5 }, () => make("td"))),
    (row, s) => [s.name, s.mode, `${s.running}/${s.desired}`, tagOf(s.image), portsOf(s), progressOf(s, done.get(s.id) || 0)].forEach((text, i) => {
      if (i) put(row.children[i], text);
      row.children[5].className = rolloutClass(s);
    }));
  if (!seen.s.size) put(part("none", () => make("p", { class: "empty" })), "No service yet: peer service create --name web nginx");
}

const portsOf = (s) => s.ports.map((p) => `*:${p.published}->${p.target}/${p.protocol}` + (p.mode === "host" ? " (host)" : "")).join(", ");
// A task is known by its name here, not by its id.
const named = (text) => text.replace(/\b[0-9a-z]{25}\b/g, (id) => (seen.t.has(id) ? nameOf(seen.t.get(id)) : id));
const rolloutOf = (s) => (s.rollout ? s.rollout.state.replace("_", " ") + (s.rollout.message ? ": " + named(s.rollout.message) : "") : "");
const isOpen = (s) => s.rollout && !s.rollout.state.endsWith("completed");
const progressOf = (s, done) => rolloutOf(s) + (isOpen(s) ? ` — ${done} of ${s.desired} slots done, ${many(s.rollout.failed, "failure")}` : "");
const rolloutClass = (s) => (!isOpen(s) ? "" : s.rollout.state.endsWith("paused") ? "state-bad" : "state-busy");
// Where the window is narrow it scrolls by itself, for who has no mouse too.
const table = (...names) => make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `table: ${names.join(", ")}` }, make("table", {}, make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))), make("tbody")));

function service(name) {
  const s = [...seen.s.values()].find((s) => s.name === name);
  if (!s) return gone(`There is no service ${name}.`);
  const tasks = [...seen.t.values()].filter((task) => task.service === s.id).sort((a, b) => a.slot - b.slot || isOver(a) - isOver(b) || b.since - a.since || (a.id < b.id ? -1 : 1));
  const about = part("about", () => make("section", { class: "sheet" }, make("h2", {}, s.name), make("p"), make("p"), make("progress", { max: 1, value: 0, "aria-label": "slots updated" }), make("p", { class: "why" })));
  const [, what, rollout, bar, pending] = about.children;
  put(what, `${s.mode}, ${s.running} of ${s.desired} running · ${s.image}${s.ports.length ? " · " + portsOf(s) : ""}`);
  const done = tasks.filter(isDone).length;
  bar.hidden = !isOpen(s);
  bar.max = Math.max(1, s.desired);
  bar.value = done;
  put(rollout, s.rollout ? `${rolloutOf(s)} — ${done} of ${s.desired} slots done, ${many(s.rollout.failed, "failure")}; ${s.order}, ${s.parallelism || "all"} at a time` : "no update under way");
  rollout.className = rolloutClass(s);
  put(pending, s.pending || "");
  const acts = part("acts", () => make("section", { class: "sheet" }, make("h2", {}, "Change it"), ...notAllowed(), ...serviceActs(s)));
  set(acts, "service", s.id);
  keepUp(acts, "replicas", s.replicas);
  keepUp(acts, "image", s.image.split("@")[0]);
  acts.querySelector("[aria-label='Resume the update']").hidden = !s.rollout || !s.rollout.state.endsWith("paused");
  const rows = part("tasks", () => make("section", {}, make("h2", {}, "Tasks"), table("Task", "Image", "Node", "Wanted", "State", "Since", "Why")));
  list(rows.querySelector("tbody"), tasks, (task) => task.id, () => make("tr", {}, ...Array.from({ length: 7 }, () => make("td"))), (row, task) => {
    const node = seen.n.get(task.node);
    [nameOf(task), tagOf(task.image), node ? node.name : "", task.desired, stateText(task), new Date(task.since).toLocaleTimeString(), task.error || task.note || ""]
      .forEach((text, i) => put(row.children[i], text));
    row.children[4].className = "state-" + kindOf(task);
  });
  eventsPart(`Events of ${s.name}`, (e) => e.Actor.ID === s.id || e.Actor.Attributes["com.docker.swarm.service.id"] === s.id);
  part("logs", () => make("section", {}, make("h2", {}, "Last log lines"),
    make("button", { type: "button", onclick: (event) => lastLines(s, event.target.parentElement) }, "Show the last lines"), make("div")));
  part("past", () => make("section", { class: "sheet" }, make("h2", {}, "History"),
    make("button", { type: "button", onclick: (event) => past(s.id, event.target.parentElement) }, "Show the revisions"), make("div")));
}

function gone(text) {
  put(part("gone", () => make("p", { class: "empty" })), text);
}

// ---- actions: each shows the command that does the same. Without the token they show that alone.
const notAllowed = () => (token ? [] : [make("p", { class: "why" }, "To change anything from here, open the link that this command prints on this node: ", make("code", {}, "peer dashboard"))]);

// For a POSIX shell.
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : "'" + word.replaceAll("'", "'\\''") + "'");

function action(label, button, fields, command, body) {
  const inputs = fields.map(([name, attributes]) => make("input", { name, required: "", ...attributes }));
  const line = make("code");
  const values = () => Object.fromEntries(inputs.map((input) => [input.name, input.value]));
  const tell = () => put(line, command(values()));
  const press = make("button", { type: "submit", disabled: token ? false : "" }, button);
  const form = make("form", {
    "aria-label": label, oninput: tell,
    onsubmit: async (event) => {
      event.preventDefault();
      press.disabled = true;
      await act(body(values()));
      press.disabled = false;
    },
  }, ...inputs.map((input, i) => make("label", {}, fields[i][2], input)), press, line);
  tell();
  return form;
}

// A field that nobody has typed into, or whose change is carried out, goes on with what the service is now.
function keepUp(within, name, value) {
  const input = within.querySelector(`input[name=${name}]`);
  const now = String(value);
  if (!input || (input.value !== input.defaultValue && input.value !== now) || input.defaultValue === now) return;
  input.defaultValue = input.value = now;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}

function serviceActs(s) {
  const acts = [
    action("Update the image", "Update", [["image", { value: s.image.split("@")[0], size: 32 }, "Image"]],
      ({ image }) => `peer service update --image ${quoted(image)} ${s.name}`, ({ image }) => ({ do: "update-image", service: s.id, image })),
    action("Resume the update", "Resume", [], () => `peer service update ${s.name}`, () => ({ do: "resume", service: s.id })),
    action("Roll back", "Roll back", [], () => `peer service rollback ${s.name}`, () => ({ do: "rollback", service: s.id })),
  ];
  if (s.mode === "replicated") {
    acts.unshift(action("Scale", "Scale", [["replicas", { type: "number", min: 0, max: 100000, value: s.replicas }, "Replicas"]],
      ({ replicas }) => `peer service scale ${s.name}=${quoted(replicas)}`, ({ replicas }) => ({ do: "scale", service: s.id, replicas: Number(replicas) })));
  }
  return acts;
}

async function act(body) {
  try {
    const answer = await fetch("act", { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const told = await answer.json();
    if (!answer.ok) return toast("bad", told.message);
    toast("good", told.warnings.length ? told.warnings.join("; ") : "Taken; watch it happen.");
  } catch (error) {
    toast("bad", "No answer from this agent: " + error.message);
  }
}

let hush;
function toast(kind, text) {
  const toast = $("toast");
  toast.dataset.kind = kind;
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(hush);
  hush = setTimeout(() => { toast.hidden = true; }, kind === "good" ? 4000 : 12000);
}

async function past(id, section) {
  const into = section.lastElementChild;
  const answer = await fetch("history/" + id, { headers: headers() });
  const revisions = await answer.json();
  if (!answer.ok) return put(into, revisions.message);
  into.replaceChildren(...revisions.map((revision, i) => {
    const lines = i ? difference(revisions[i - 1].spec, revision.spec) : ["the first one"];
    return make("div", {}, make("h3", {}, `${revision.number}${revision.current ? " (current)" : ""}${revision.left ? " (rolled back)" : ""}, ${new Date(revision.created).toLocaleString()}`),
      make("pre", {}, make("code", {}, lines.join("\n") || "no difference")));
  }).reverse());
}

async function lastLines(s, section) {
  const into = section.lastElementChild;
  const answer = await fetch("logs/" + s.id, { headers: headers() });
  const said = await answer.json();
  if (!answer.ok) return put(into, said.message);
  const from = (id) => { const task = seen.t.get(id); return task ? nameOf(task) : s.name; };
  const lines = said.lines.map((line) => `${new Date(line.at).toLocaleTimeString()} ${from(line.task)}${line.stderr ? " (stderr)" : ""} | ${line.text}`);
  lines.push(...said.troubles.map((trouble) => `(lines of ${from(trouble.task)} are missing: ${trouble.why})`));
  if (!said.whole) lines.push("(some node took too long: its lines are missing)");
  into.replaceChildren(make("pre", { tabindex: "0", role: "region", "aria-label": `last lines of ${s.name}` }, make("code", {}, lines.join("\n") || "nothing was said yet")));
}

// Lines "- path: old" and "+ path: new" for what differs.
function difference(before, after, path = "") {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  const isMap = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  if (isMap(before) && isMap(after)) {
    const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
    return names.flatMap((name) => difference(before[name], after[name], path ? path + "." + name : name));
  }
  const line = (sign, value) => (value === undefined ? [] : [`${sign} ${path}: ${JSON.stringify(value)}`]);
  return [...line("-", before), ...line("+", after)];
}

// ---- one node
function node(name) {
  const found = [...seen.n.values()].find((node) => node.name === name);
  if (!found) return gone(`There is no node ${name}.`);
  const tasks = tasksOf(found.id);
  const board = part("board", () => make("section", { class: "nodes", "aria-label": "Node" }));
  list(board, [found], (node) => node.id, freshNode, (element, node) => fillNode(element, node, tasks));
  const facts = part("facts", () => make("section", { class: "sheet" }, make("h2", {}, "Facts"), table("What", "Value")));
  const rows = [["id", found.id], ["address", found.addr], ["agent", found.agent], ["engine", found.engine], ["joined", new Date(found.joined).toLocaleString()],
    ["votes", found.voter ? "yes" : "no"], ["labels", Object.entries(found.labels).map(([k, v]) => `${k}=${v}`).join(", ") || "none"]];
  list(facts.querySelector("tbody"), rows, ([name]) => name, ([name]) => make("tr", {}, make("th", { scope: "row" }, name), make("td")), (row, [, value]) => put(row.children[1], String(value)));
  networkPart(found);
  part("acts", () => make("section", { class: "sheet" }, make("h2", {}, "Change it"), ...notAllowed(),
    ...["active", "pause", "drain"].map((availability) => action("Make it " + availability, availability, [],
      () => `peer node update --availability ${availability} ${quoted(found.name)}`, () => ({ do: "availability", node: found.id, availability })))));
  eventsPart(`Events of ${found.name}`, (e) => e.Actor.ID === found.id || e.Actor.Attributes["com.docker.swarm.node.id"] === found.id);
}

// ---- whom a node hears, by its own word, asked while somebody looks at it
let near = { of: null };
let asked = { of: null, at: 0 };
async function askNetwork(id) {
  if (asked.of === id && Date.now() - asked.at < 1500) return;
  asked = { of: id, at: Date.now() };
  try {
    const answer = await fetch("network/" + id, { headers: headers() });
    // Another node may be looked at by now.
    if (answer.ok && asked.of === id) near = { of: id, ...(await answer.json()) };
    draw();
  } catch (error) {
    console.debug("network:", error.message);
  }
}
setInterval(() => { if (location.hash.startsWith("#/node/")) draw(); }, 2000);

const ago = (ms) => (ms === null ? "never" : `${(ms / 1000).toFixed(1)} s ago`);
const tripOf = (row) => (row.rtt === null ? "no connection" : `${row.rtt.toFixed(2)} ms`);
const doubtOf = (row) => ((seen.n.get(row.node) || {}).status === "down" ? "down" : row.verdict !== null ? `suspect: down in ${(row.verdict / 1000).toFixed(1)} s unless it is heard`
  : row.silent ? "asked, no answer yet" : "none");

function networkPart(found) {
  const mine = found.id === seen.c.self;
  const self = (seen.n.get(seen.c.self) || { name: "this node" }).name;
  const sheet = part("network", () => make("section", {}, make("h2", {}, "Network"), make("p"), make("p"), table("Node", "Status", "Last heard", "Round trip", "Suspicion")));
  const said = near.of === found.id ? near : {};
  put(sheet.children[1], said.why ? `Whom ${found.name} hears it doesn't say: ${said.why}` : `Whom ${found.name} hears, by its own word.`);
  const row = said.heard;
  put(sheet.children[2], mine || !row ? "" : `${self}, whose page this is, heard it ${ago(row.heard)}; round trip ${tripOf(row)}; suspicion: ${doubtOf(row)}.`);
  const rows = (said.hears || []).filter((row) => seen.n.has(row.node));
  list(sheet.querySelector("tbody"), rows, (row) => row.node, () => make("tr", {}, ...Array.from({ length: 5 }, () => make("td"))), (element, row) => {
    const node = seen.n.get(row.node);
    [node ? node.name : row.node, node ? node.status : "", ago(row.heard), tripOf(row), doubtOf(row)]
      .forEach((text, i) => put(element.children[i], text));
  });
  askNetwork(found.id);
}

// ---- what happens
function whatOf(event) {
  const a = event.Actor.Attributes;
  const changes = Object.keys(a).filter((name) => name.endsWith(".new")).map((name) => {
    const base = name.slice(0, -4);
    return `${base} ${a[base + ".old"] ? a[base + ".old"] + " to " : ""}${a[name]}`;
  });
  const more = [a["node.name"] && "on " + a["node.name"], a.term && "term " + a.term, a.voters, a.message, a.error].filter(Boolean);
  return [...changes, ...more].join(", ");
}

function eventsPart(title, takes) {
  const sheet = part("events", () => make("section", {}, make("h2", {}, title), make("p"), table("Time", "Event", "Of", "What")));
  const rows = seen.e.filter(takes).slice(0, 50);
  put(sheet.children[1], rows.length ? "" : "Nothing of late, as far as this node remembers.");
  list(sheet.querySelector("tbody"), rows, (event) => String(event.n), (event) => make("tr", {}, ...[
    new Date(event.time * 1000).toLocaleTimeString(), `${event.Type} ${event.Action}`, event.Actor.Attributes.name || "", whatOf(event),
  ].map((text) => make("td", {}, text))), () => {});
}

function eventsView() {
  eventsPart("Events", () => true);
}

// ---- who decides
function electorate() {
  const holder = seen.c.holder;
  const sheet = part("electorate", () => make("section", {}, make("h2", {}, "Electorate and lease"), make("p"), table("Node", "Votes", "Lease", "Status")));
  const name = (id) => (seen.n.get(id) || { name: id }).name;
  put(sheet.children[1], holder
    ? `${name(holder.node)} holds the scheduler's lease${seen.c.since ? (seen.c.sinceExactly ? " since " : " since before ") + timeOf(seen.c.since) : ""}, term ${holder.term}. The electorate has ${many(seen.c.voters.length, "voter")}; a majority of them grants the lease and acknowledges changes.`
    : "Nobody holds the scheduler's lease: containers run on and are restarted where they are; changes are kept until a majority of the voters is back.");
  list(sheet.querySelector("tbody"), byName(seen.n), (node) => node.id, () => make("tr", {}, ...Array.from({ length: 4 }, () => make("td"))), (row, node) =>
    [node.name, node.voter ? "yes" : "", node.holder ? "holds it" : "", node.status].forEach((text, i) => put(row.children[i], text)));
  eventsPart("Terms and electorates", (e) => e.Type === "lease");
}

addEventListener("hashchange", () => {
  $("toast").hidden = true;
  token = takeToken();
  draw();
  main.focus({ preventScroll: true });
});
follow();
