"use strict";

// Models and data sets wrote the rows: their texts are only ever inserted as text.
/**
 * Starts the browser over the rows of the page.
 *
 * draw: by field, the content of a cell that is not its text. opened: what to do when a row is shown in full.
 * Returns the rows, and a function that shows them again after they have changed.
 */
const browse = async ({ draw = {}, opened = () => {} } = {}) => {
  const PAGE_ROWS = 50;
  const MAX_SHOWN_CHARS = 80; // in the table and in names; an opened text is shown in full
  const element = (id) => document.getElementById(id);
  const { items, file, facets, searched, columns, numbers, answers, facts, names, status } = JSON.parse(
    element("browser").dataset.view,
  );
  const name = (field) => names[field] ?? field.replaceAll("_", " ");
  const dialog = element("opened");
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
    element("status").textContent = `${shown(view.length)} of ${shown(rows.all.length)} ${items}`;
    facets.filter((field) => rows.varies(field)).forEach(showCounts);
    const { field, descending } = rows.sorted;
    for (const cell of element("head").children) {
      const direction = descending ? "descending" : "ascending";
      cell.setAttribute("aria-sort", cell.dataset.field === field ? direction : "none");
    }
    showPage();
    remember();
  }

  /** Rows have changed or were added: the same filters, place and open row, even if this row no longer matches. */
  function update() {
    const row = view[cursor];
    const place = cursor;
    const hasFocus = element("lines").contains(document.activeElement);
    rows.search(element("search").value);
    buildControls();
    refresh();
    if (dialog.open && !view.includes(row)) view.splice(place, 0, row);
    cursor = Math.max(0, view.indexOf(row));
    showPage();
    if (hasFocus && !dialog.open) focusLine();
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
    element("facets").replaceChildren(...facets.filter((field) => rows.varies(field)).map(buildFacet));
    element("head").replaceChildren();
    for (const field of columns.filter((field) => rows.varies(field) || !["sample", ...facets].includes(field))) {
      const cell = make("th", { scope: "col", className: numbers.includes(field) ? "number" : "" });
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
      if (field === status) cell.dataset.outcome = text;
      if (draw[field]) cell.append(draw[field](row));
      else if (index === 0) cell.append(make("button", { type: "button" }, text));
      else if (answers.includes(field)) formulas.fill(cell, text, true);
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

  // One row in full

  function open() {
    const row = view[cursor];
    const sample = rows.varies("sample") ? ` · sample ${shown(rows.value("sample", row))}` : "";
    const position = `${shown(cursor + 1)} of ${shown(view.length)}`;
    element("name").textContent = `${shown(rows.value(columns[0], row))}${sample} · ${position}`;
    const known = facts.filter((field) => rows.isKnown(field));
    element("facts").replaceChildren(...known.map((field) => fact(field, rows.value(field, row))));
    element("back").disabled = cursor === 0;
    element("on").disabled = cursor === view.length - 1;
    element("raw").setAttribute("aria-pressed", raw);
    for (const box of dialog.querySelectorAll("[data-field]")) {
      const field = box.dataset.field;
      const text = String(rows.value(field, row) ?? "–");
      if (raw || box.dataset.raw) box.replaceChildren(text);
      else formulas.fill(box, text, answers.includes(field));
    }
    opened(row, raw);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    element("name").focus();
    remember();
  }

  function fact(field, item) {
    const content = make("dd", {}, shown(item));
    if (field === status) content.dataset.outcome = shown(item);
    return make("div", {}, make("dt", {}, name(field)), content);
  }

  // The address: filters, order and the open row

  const remember = later(300, () => {
    const parts = new URLSearchParams();
    for (const field of facets) {
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
    for (const field of facets) {
      const wanted = parts.getAll(field);
      rows.columns[field].values.forEach((item, index) => {
        if (wanted.includes(String(item ?? ""))) rows.chosen[field].add(index);
      });
    }
    const [, minus, field] = /^(-?)(.*)$/s.exec(parts.get("sort") ?? "");
    if (columns.includes(field)) rows.sortBy(field, minus === "-");
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
    on("opened", "close", () => {
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
    element("status").textContent = `Reading ${items}.`;
    rows = new Rows(await unpacked("rows").json(), facets, searched);
    element("rows").remove();
    buildControls();
    listen();
    element("browser").hidden = false;
    recall();
    return { rows, update };
  } catch (error) {
    element("status").textContent = `This browser cannot read the ${items} (${error}). ${file} has them.`;
    throw error;
  }
};
