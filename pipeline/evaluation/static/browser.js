"use strict";

// Everything in the rows was written by models and data sets: it only ever becomes text.
(async () => {
  const PAGE_ROWS = 50;
  const MAX_CELL_CHARS = 80;
  const FACETS = ["outcome", "model", "dataset", "level", "type"];
  const SEARCHED = ["question", "completion", "answer", "gold"];
  const COLUMNS = [
    ...["problem_id", "sample", "outcome", "answer", "gold", "num_tokens", "seconds", "level", "type", "dataset", "model"],
  ];
  const FACTS = [
    ...["outcome", "strict", "symbolic", "numeric", "method", "model", "dataset", "level", "type", "source"],
    ...["difficulty", "num_prompt_tokens", "num_tokens", "seconds", "in_training_data"],
  ];
  const NAMES = { problem_id: "problem", num_tokens: "tokens", num_prompt_tokens: "prompt tokens" };
  const collator = new Intl.Collator("en", { numeric: true });
  const element = (id) => document.getElementById(id);
  const dialog = element("completion");
  const chosen = Object.fromEntries(FACETS.map((field) => [field, new Set()]));
  let columns; // field -> {values: the different ones, rows: for each row the index of its value}
  let all; // the numbers of all rows
  let found = null; // for each row whether the search finds it; null: no search
  let sorted = { field: null, descending: false };
  let view = []; // the numbers of the rows that match, in order
  let cursor = 0; // where in the view the reader is
  let raw = false;

  function make(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function later(milliseconds, action) {
    let timer;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(action, milliseconds);
    };
  }

  async function unpack(base64) {
    const packed = atob(base64);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  const value = (field, row) => columns[field].values[columns[field].rows[row]];
  const varies = (field) => columns[field].values.length > 1;
  const name = (field) => NAMES[field] ?? field.replaceAll("_", " ");

  function shown(item) {
    if (item === null || item === "") return "–";
    if (typeof item === "boolean") return item ? "yes" : "no";
    if (typeof item === "number") return item.toLocaleString("en", { maximumFractionDigits: 2 });
    return item;
  }

  // Filters and order

  function matching(except) {
    const tests = FACETS.filter((field) => field !== except && chosen[field].size);
    return all.filter(
      (row) => (!found || found[row]) && tests.every((field) => chosen[field].has(columns[field].rows[row])),
    );
  }

  function search() {
    const wanted = element("search").value.toLowerCase();
    const hits = SEARCHED.map((field) => {
      const column = columns[field];
      column.lower ??= column.values.map((item) => String(item ?? "").toLowerCase());
      return [column.rows, column.lower.map((text) => text.includes(wanted))];
    });
    found = wanted ? all.map((row) => hits.some(([rows, hit]) => hit[rows[row]])) : null;
  }

  function ranks(column) {
    if (!column.ranks) {
      const { values } = column;
      const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
      const order = [...values.keys()].filter((i) => values[i] !== null).sort((a, b) => compare(values[a], values[b]));
      column.ranks = values.map(() => Infinity);
      order.forEach((index, rank) => (column.ranks[index] = rank));
    }
    return column.ranks;
  }

  function inOrder(rows) {
    if (!sorted.field) return rows;
    const column = columns[sorted.field];
    const rank = ranks(column);
    const sign = sorted.descending ? -1 : 1;
    return rows.sort((a, b) => {
      const [left, right] = [rank[column.rows[a]], rank[column.rows[b]]];
      return (left === Infinity) - (right === Infinity) || sign * (left - right) || a - b;
    });
  }

  function refresh() {
    view = inOrder(matching());
    cursor = 0;
    element("status").textContent = `${shown(view.length)} of ${shown(all.length)} completions`;
    FACETS.filter(varies).forEach(showCounts);
    for (const cell of element("head").children) {
      const direction = sorted.descending ? "descending" : "ascending";
      cell.setAttribute("aria-sort", cell.dataset.field === sorted.field ? direction : "none");
    }
    showPage();
    remember();
  }

  // Controls

  function buildFacet(field) {
    const order = ranks(columns[field]);
    const indexes = [...order.keys()].sort((a, b) => order[a] - order[b] || 0);
    const label = (index) => make("span", { className: "count" }, shown(columns[field].values[index]));
    if (field === "outcome") {
      const boxes = indexes.map((index) =>
        make("label", {}, make("input", { type: "checkbox", name: field, value: index }), label(index)),
      );
      return make("fieldset", { id: field }, make("legend", {}, name(field)), ...boxes);
    }
    const options = indexes.map((index) => make("option", { value: index }));
    return make("label", {}, name(field), make("select", { id: field }, make("option", { value: "" }, "all"), ...options));
  }

  function showCounts(field) {
    const counts = columns[field].values.map(() => 0);
    for (const row of matching(field)) counts[columns[field].rows[row]]++;
    const text = (index) => `${shown(columns[field].values[index])} (${shown(counts[index])})`;
    for (const box of element(field).querySelectorAll("input")) {
      box.checked = chosen[field].has(Number(box.value));
      box.nextSibling.textContent = text(box.value);
    }
    for (const option of element(field).querySelectorAll("option")) {
      if (option.value) option.textContent = text(option.value);
      option.selected = option.value ? chosen[field].has(Number(option.value)) : !chosen[field].size;
    }
  }

  function buildControls() {
    element("facets").append(...FACETS.filter(varies).map(buildFacet));
    for (const field of COLUMNS.filter((field) => varies(field) || !["sample", ...FACETS].includes(field))) {
      const numbers = columns[field].values.every((item) => item === null || typeof item === "number");
      const cell = make("th", { scope: "col", className: numbers ? "number" : "" });
      cell.append(make("button", { type: "button" }, name(field)));
      cell.dataset.field = field;
      element("head").append(cell);
    }
  }

  // The table

  function line(row) {
    const cells = [...element("head").children].map((head, index) => {
      const field = head.dataset.field;
      const cell = make(index ? "td" : "th", { className: head.className });
      const text = String(shown(value(field, row)));
      const short = text.length > MAX_CELL_CHARS ? `${text.slice(0, MAX_CELL_CHARS)}…` : text;
      if (field === "outcome") cell.dataset.outcome = text;
      if (index === 0) cell.append(make("button", { type: "button" }, short));
      else if (["answer", "gold"].includes(field) && short === text) formulas.fill(cell, text, true);
      else cell.append(short);
      return cell;
    });
    cells[0].scope = "row";
    const made = make("tr", {}, ...cells);
    made.dataset.row = row;
    return made;
  }

  function showPage() {
    const page = Math.floor(cursor / PAGE_ROWS);
    const pages = Math.max(1, Math.ceil(view.length / PAGE_ROWS));
    element("lines").replaceChildren(...view.slice(page * PAGE_ROWS, (page + 1) * PAGE_ROWS).map(line));
    element("page").textContent = `page ${shown(page + 1)} of ${shown(pages)}`;
    element("back").disabled = page === 0;
    element("on").disabled = page === pages - 1;
  }

  function goTo(position) {
    const samePage = Math.floor(position / PAGE_ROWS) === Math.floor(cursor / PAGE_ROWS);
    cursor = position;
    if (!samePage) showPage();
  }

  function step(by) {
    const position = cursor + by;
    if (position < 0 || position >= view.length) return;
    goTo(position);
    if (dialog.open) open();
    else focusLine();
  }

  const focusLine = () => element("lines").children[cursor % PAGE_ROWS]?.querySelector("button").focus();

  // One completion

  function open() {
    const row = view[cursor];
    const sample = varies("sample") ? ` · sample ${value("sample", row)}` : "";
    element("name").textContent = `${value("problem_id", row)}${sample} · ${shown(cursor + 1)} of ${shown(view.length)}`;
    element("facts").replaceChildren(...FACTS.map((field) => fact(field, value(field, row))));
    element("previous").disabled = cursor === 0;
    element("next").disabled = cursor === view.length - 1;
    element("raw").setAttribute("aria-pressed", raw);
    for (const box of dialog.querySelectorAll("[data-field]")) {
      const field = box.dataset.field;
      const text = String(value(field, row) ?? "–");
      if (raw || field === "prompt") box.replaceChildren(text);
      else formulas.fill(box, text, field === "answer" || field === "gold");
    }
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    element("name").focus();
    remember();
  }

  function fact(field, item) {
    const content = make("dd", {}, String(shown(item)));
    if (field === "outcome") content.dataset.outcome = item;
    return make("div", {}, make("dt", {}, name(field)), content);
  }

  // The address: filters, order and the open completion

  const remember = later(300, () => {
    const parts = new URLSearchParams();
    for (const field of FACETS) for (const index of chosen[field]) parts.append(field, columns[field].values[index] ?? "");
    if (found) parts.set("search", element("search").value);
    if (sorted.field) parts.set("sort", (sorted.descending ? "-" : "") + sorted.field);
    if (dialog.open) parts.set("row", view[cursor]);
    history.replaceState(null, "", `#${parts}`);
  });

  function recall() {
    const parts = new URLSearchParams(location.hash.slice(1));
    for (const field of FACETS) {
      const wanted = parts.getAll(field);
      const indexes = [...columns[field].values.keys()];
      chosen[field] = new Set(indexes.filter((index) => wanted.includes(String(columns[field].values[index] ?? ""))));
    }
    const [, minus, field] = /^(-?)(.*)$/.exec(parts.get("sort") ?? "");
    sorted = { field: COLUMNS.includes(field) ? field : null, descending: minus === "-" };
    element("search").value = parts.get("search") ?? "";
    search();
    refresh();
    const position = view.indexOf(Number(parts.get("row") ?? NaN));
    if (position < 0) return dialog.close();
    goTo(position);
    return open();
  }

  // Events

  function listen() {
    element("facets").addEventListener("change", ({ target }) => {
      const set = chosen[target.name || target.id];
      if (target.type !== "checkbox") set.clear();
      if (target.type === "checkbox" && !target.checked) set.delete(Number(target.value));
      else if (target.value) set.add(Number(target.value));
      refresh();
    });
    const searchLater = later(200, () => {
      search();
      refresh();
    });
    element("search").addEventListener("input", searchLater);
    element("reset").addEventListener("click", () => {
      history.replaceState(null, "", "#");
      recall();
    });
    element("head").addEventListener("click", ({ target }) => {
      const { field } = target.closest("th").dataset;
      sorted = { field, descending: sorted.field === field && !sorted.descending };
      refresh();
    });
    element("lines").addEventListener("click", ({ target }) => {
      goTo(view.indexOf(Number(target.closest("tr").dataset.row)));
      open();
    });
    element("lines").addEventListener("focusin", ({ target }) => goTo(view.indexOf(Number(target.closest("tr").dataset.row))));
    const firstOfPage = (by) => (Math.floor(cursor / PAGE_ROWS) + by) * PAGE_ROWS;
    element("back").addEventListener("click", () => goTo(firstOfPage(-1)));
    element("on").addEventListener("click", () => goTo(firstOfPage(1)));
    element("previous").addEventListener("click", () => step(-1));
    element("next").addEventListener("click", () => step(1));
    element("close").addEventListener("click", () => dialog.close());
    element("raw").addEventListener("click", () => {
      raw = !raw;
      open();
    });
    dialog.addEventListener("close", () => {
      focusLine();
      remember();
    });
    document.addEventListener("keydown", onKey);
    addEventListener("hashchange", recall);
  }

  function onKey(event) {
    const typing = event.target.matches("input, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const [back, on] = dialog.open ? ["ArrowLeft", "ArrowRight"] : ["ArrowUp", "ArrowDown"];
    const inside = dialog.open || event.target.closest("#lines");
    if (!["j", "k"].includes(event.key) && !(inside && [back, on].includes(event.key))) return;
    event.preventDefault();
    if (inside) step(event.key === on || event.key === "j" ? 1 : -1);
    else focusLine();
  }

  try {
    element("status").textContent = "Reading the completions.";
    columns = await unpack(element("rows").textContent);
    element("rows").remove();
    all = [...columns.outcome.rows.keys()];
    buildControls();
    listen();
    element("browser").hidden = false;
    recall();
  } catch (error) {
    element("status").textContent = `The completions could not be read by this browser (${error}). eval_results.jsonl has them.`;
    throw error;
  }
})();
