"use strict";

(async () => {
  const POLL_MS = 2000;
  const SHOWN_GROUPS = 20;
  const element = (id) => document.getElementById(id);
  const data = await unpacked("run").json();
  const { metrics, isLive, chunks } = data;
  let { evaluations, cursor } = data;
  let atlas; // the browser over problems
  let drawn = Promise.resolve();

  // Completions

  const parts = new Map();
  function fromPart(step) {
    const name = `completions-${chunks[step]}`;
    if (!(step in chunks)) return Promise.resolve([]);
    if (!parts.has(name)) parts.set(name, unpacked(name).json());
    return parts.get(name).then((steps) => steps[step]);
  }

  async function fromServer(step) {
    const response = await fetch(`completions?step=${step}`);
    if (!response.ok) throw new Error(await response.text());
    const completions = await response.json();
    if (!completions.length) throw new Error("they are no longer stored");
    return completions;
  }

  const problem = (row) =>
    Object.fromEntries(["problem_id", "question", "gold"].map((field) => [field, atlas.rows.value(field, row)]));
  const groups = new Groups(problem, isLive ? fromServer : fromPart);

  // The newest groups

  function showNewest(added) {
    const list = element("groups");
    const isRead = [...list.children].some((one) => one.open);
    if (!isRead && added >= SHOWN_GROUPS) list.replaceChildren();
    const count = isRead ? added : Math.min(added, SHOWN_GROUPS);
    list.prepend(...groups.all.slice(-count).reverse().map((group) => groups.block(group, { named: true })));
    while (list.childElementCount > SHOWN_GROUPS && isLive && !list.lastChild.open) list.lastChild.remove();
    element("older").hidden = list.childElementCount >= groups.all.length;
  }

  function showOlder() {
    const end = groups.all.length - element("groups").childElementCount;
    const older = groups.all.slice(Math.max(0, end - SHOWN_GROUPS), end).reverse();
    element("groups").append(...older.map((group) => groups.block(group, { named: true })));
    element("older").hidden = element("groups").childElementCount >= groups.all.length;
  }

  // A problem in full: its posterior, and every step that asked it, the newest first

  const attempts = Groups.make("div", {});
  function showAttempts(row, raw) {
    const own = groups.of(row);
    const judged = own.filter((group) => group.mean !== null);
    const blocks = own.toReversed().map((group, index) => groups.block(group, { raw, open: index === 0 }));
    const curve = Groups.make("div", { id: "posterior" });
    attempts.replaceChildren(...(judged.length > 1 ? [curve] : []), Groups.make("h4", {}, "Attempts"), ...blocks);
    if (judged.length > 1) drawn.then(() => curve.isConnected && curves.drawPosterior(curve, judged));
  }

  // Curves

  async function loadPlotly() {
    const code = await unpacked("plotly").text();
    document.head.append(Groups.make("script", { textContent: code }));
    element("plotly").remove();
  }

  function drawCurves() {
    const byTokens = document.querySelector("#axis input:checked").value === "tokens";
    element("axis").hidden = !groups.hasTokens;
    curves.draw(element("curves"), metrics, evaluations, byTokens ? groups.tokensAt : null);
  }

  // News

  function showAccuracy(tables) {
    const cell = (tag) => (item) => {
      const [main, ...small] = [item].flat();
      return Groups.make(tag, {}, String(main), ...small.map((text) => Groups.make("small", {}, text)));
    };
    const made = tables.map(([title, head, lines]) => {
      const rows = [Groups.make("tr", {}, ...head.map(cell("th")))];
      rows.push(...lines.map((line) => Groups.make("tr", {}, ...line.map(cell("td")))));
      const table = Groups.make("div", { className: "scroll" }, Groups.make("table", { className: "totals" }, ...rows));
      return [title, table];
    });
    const [[title, first], ...others] = made;
    const folded = others.map(([name, table]) => Groups.make("details", {}, Groups.make("summary", {}, name), table));
    element("accuracy").replaceChildren(Groups.make("p", {}, Groups.make("b", {}, title)), first, ...folded);
  }

  function take(news) {
    cursor = news.cursor;
    metrics.push(...news.metrics);
    for (const [row, item] of Object.entries(news.problems)) atlas.rows.set(Number(row), item);
    groups.add(news.groups);
    if (news.accuracy) {
      evaluations = news.evaluations;
      showAccuracy(news.accuracy);
    }
    if (news.groups.length) showNewest(news.groups.length);
    if (Object.keys(news.problems).length) atlas.update();
    if (news.metrics.length || news.accuracy) drawCurves();
  }

  async function poll() {
    try {
      const response = await fetch(`rows?${new URLSearchParams(cursor)}`);
      if (!response.ok) throw new Error(await response.text());
      const news = await response.json();
      if (news.cursor.generation !== cursor.generation) return location.reload();
      take(news);
      const step = metrics.length ? `step ${metrics.at(-1).step}` : "no step yet";
      element("live").textContent = `${step} · read at ${new Date().toLocaleTimeString()}`;
    } catch (error) {
      element("live").textContent = `nothing new can be read (${error.message})`;
    }
    return setTimeout(poll, POLL_MS);
  }

  groups.add(data.groups);
  if (element("browser")) {
    atlas = await browse({ draw: { last_step: (row) => groups.strip(row) }, opened: showAttempts });
    element("opened").append(attempts);
    element("older").addEventListener("click", showOlder);
    showNewest(SHOWN_GROUPS);
  }
  performance.mark("rows");
  if (element("curves")) {
    drawn = loadPlotly();
    element("axis").addEventListener("change", drawCurves);
    await drawn;
    drawCurves();
  }
  performance.mark("curves");
  document.body.dataset.ready = "yes";
  if (isLive) poll();
})();
