"use strict";

// Models and data sets wrote the rows: they are only ever inserted as text.
(async () => {
  const PAGE_ROWS = 50;
  const MAX_SHOWN_CHARS = 80; // in the table and in names; an opened text is shown in full
  const FACETS = ["outcome", "level", "type", "dataset", "model"];
  const SEARCHED = ["question", "completion", "answer", "gold"];
  const COLUMNS = ["problem_id", "sample", "outcome", "answer", "gold", "num_tokens", "seconds", ...FACETS.slice(1)];
  const NUMBERS = ["sample", "num_tokens", "seconds"];
  const FACTS = [
    ...["outcome", "strict", "symbolic", "numeric", "method", "model", "dataset", "level", "type", "source"],
    ...["difficulty", "num_prompt_tokens", "num_tokens", "seconds", "in_training_data"],
  ];
  const NAMES = { problem_id: "problem", num_tokens: "tokens", num_prompt_tokens: "prompt tokens" };
  const element = (id) => document.getElementById(id);
  const name = (field) => NAMES[field] ?? field.replaceAll("_", " ");
  const dialog = element("completion");
  let rows;
  let view = []; // the rows that match, sorted
  let cursor = 0; // position in the view
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

  function shown(item) {
    if (item === null || item === "") return "–";
    if (typeof item === "boolean") return item ? "yes" : "no";
    if (typeof item === "number") return item.toLocaleString("en", { maximumFractionDigits: 2 });
    return item.length > MAX_SHOWN_CHARS ? `${item.slice(0, MAX_SHOWN_CHARS)}…` : item;
  }

  // Filters

  function refresh() {
    view = rows.inOrder();
    cursor = 0;
    element("status").textContent = `${shown(view.length)} of ${shown(rows.all.length)} completions`;
    FACETS.filter((field) => rows.varies(field)).forEach(showCounts);
    const { field, descending } = rows.sorted;
    for (const cell of element("head").children) {
      const direction = descending ? "descending" : "ascending";
      cell.setAttribute("aria-sort", cell.dataset.field === field ? direction : "none");
    }
    showPage();
    remember();
  }

  function buildFacet(field) {
    const rank = rows.ranks(field);
    const boxes = [...rank.keys()].sort((a, b) => rank[a] - rank[b]).map((index) => {
      const box = make("input", { type: "checkbox", name: field, value: index });
      return make("label", {}, box, make("span", {}));
    });
    return make("fieldset", { id: field }, make("legend", {}, name(field)), ...boxes);
  }

  function showCounts(field) {
    const { values } = rows.columns[field];
    const counts = rows.counts(field);
    for (const box of element(field).querySelectorAll("input")) {
      box.checked = rows.chosen[field].has(Number(box.value));
      box.nextSibling.textContent = `${shown(values[box.value])} (${shown(counts[box.value])})`;
    }
  }

  function buildControls() {
    element("facets").append(...FACETS.filter((field) => rows.varies(field)).map(buildFacet));
    for (const field of COLUMNS.filter((field) => rows.varies(field) || !["sample", ...FACETS].includes(field))) {
      const cell = make("th", { scope: "col", className: NUMBERS.includes(field) ? "number" : "" });
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
      const text = shown(rows.value(field, row));
      if (field === "outcome") cell.dataset.outcome = text;
      if (index === 0) cell.append(make("button", { type: "button" }, text));
      else if (["answer", "gold"].includes(field)) formulas.fill(cell, text, true);
      else cell.append(text);
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
    element("page-back").disabled = page === 0;
    element("page-on").disabled = page === pages - 1;
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
    const sample = rows.varies("sample") ? ` · sample ${shown(rows.value("sample", row))}` : "";
    const position = `${shown(cursor + 1)} of ${shown(view.length)}`;
    element("name").textContent = `${shown(rows.value("problem_id", row))}${sample} · ${position}`;
    const facts = FACTS.filter((field) => rows.isKnown(field));
    element("facts").replaceChildren(...facts.map((field) => fact(field, rows.value(field, row))));
    element("back").disabled = cursor === 0;
    element("on").disabled = cursor === view.length - 1;
    element("raw").setAttribute("aria-pressed", raw);
    for (const box of dialog.querySelectorAll("[data-field]")) {
      const field = box.dataset.field;
      const text = String(rows.value(field, row) ?? "–");
      if (raw || field === "prompt") box.replaceChildren(text);
      else formulas.fill(box, text, field === "answer" || field === "gold");
    }
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    element("name").focus();
    remember();
  }

  function fact(field, item) {
    const content = make("dd", {}, shown(item));
    if (field === "outcome") content.dataset.outcome = shown(item);
    return make("div", {}, make("dt", {}, name(field)), content);
  }

  // The address: filters, order and the open completion

  const remember = later(300, () => {
    const parts = new URLSearchParams();
    for (const field of FACETS) {
      for (const index of rows.chosen[field]) parts.append(field, rows.columns[field].values[index] ?? "");
    }
    const { field, descending } = rows.sorted;
    if (field) parts.set("sort", (descending ? "-" : "") + field);
    if (rows.wanted) parts.set("search", element("search").value);
    if (dialog.open) parts.set("row", view[cursor]);
    history.replaceState(null, "", `#${parts}`);
  });

  function recall() {
    const parts = new URLSearchParams(location.hash.slice(1));
    rows.clear();
    for (const field of FACETS) {
      const wanted = parts.getAll(field);
      rows.columns[field].values.forEach((item, index) => {
        if (wanted.includes(String(item ?? ""))) rows.chosen[field].add(index);
      });
    }
    const [, minus, field] = /^(-?)(.*)$/s.exec(parts.get("sort") ?? "");
    if (COLUMNS.includes(field)) rows.sortBy(field, minus === "-");
    element("search").value = parts.get("search") ?? "";
    rows.search(element("search").value);
    refresh();
    const position = parts.has("row") ? view.indexOf(Number(parts.get("row"))) : -1;
    if (position < 0) return dialog.close();
    goTo(position);
    return open();
  }

  // Events

  function listen() {
    const on = (id, type, action) => element(id).addEventListener(type, action);
    const positionOf = (target) => view.indexOf(Number(target.closest("tr").dataset.row));
    on("facets", "change", ({ target }) => {
      rows.chosen[target.name][target.checked ? "add" : "delete"](Number(target.value));
      refresh();
    });
    on("search", "input", later(200, () => {
      rows.search(element("search").value);
      refresh();
    }));
    on("reset", "click", () => {
      history.replaceState(null, "", "#");
      recall();
    });
    on("head", "click", ({ target }) => {
      const { field } = target.closest("th").dataset;
      rows.sortBy(field, rows.sorted.field === field && !rows.sorted.descending);
      refresh();
    });
    on("lines", "focusin", ({ target }) => goTo(positionOf(target)));
    on("lines", "click", ({ target }) => {
      goTo(positionOf(target));
      open();
    });
    on("page-back", "click", () => goTo(cursor - (cursor % PAGE_ROWS) - PAGE_ROWS));
    on("page-on", "click", () => goTo(cursor - (cursor % PAGE_ROWS) + PAGE_ROWS));
    on("back", "click", () => step(-1));
    on("on", "click", () => step(1));
    on("close", "click", () => dialog.close());
    on("raw", "click", () => {
      raw = !raw;
      open();
    });
    on("completion", "close", () => {
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
    element("status").textContent = "Reading completions.";
    rows = await Rows.unpack(element("rows").textContent, FACETS, SEARCHED);
    element("rows").remove();
    buildControls();
    listen();
    element("browser").hidden = false;
    recall();
  } catch (error) {
    element("status").textContent = `This browser cannot read the completions (${error}). eval_results.jsonl has them.`;
    throw error;
  }
})();
