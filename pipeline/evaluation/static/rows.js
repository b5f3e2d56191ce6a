"use strict";

/** The bytes of a packed element, base64 of gzip, as a Response. */
function unpacked(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

// Rows stored as columns, field -> {values: the distinct values, rows: the index of each row's value}, with the filters
// and the sort order. A row is a number.
class Rows {
  static #collator = new Intl.Collator("en", { numeric: true });

  constructor(columns, facets, searched) {
    this.columns = columns;
    this.facets = facets;
    this.searched = searched;
    this.all = [...Object.values(columns)[0].rows.keys()];
    this.clear();
  }

  clear() {
    this.chosen = Object.fromEntries(this.facets.map((field) => [field, new Set()])); // indexes of values; empty: all
    this.sortBy(null, false);
    this.search("");
  }

  /** Change a row, or add the one after the last. */
  set(row, item) {
    if (row === this.all.length) this.all.push(row);
    for (const [field, column] of Object.entries(this.columns)) {
      column.indexes ??= new Map(column.values.map((item, index) => [item, index]));
      const value = item[field] ?? null;
      if (!column.indexes.has(value)) {
        column.indexes.set(value, column.values.push(value) - 1);
        column.lower = undefined;
      }
      column.rows[row] = column.indexes.get(value);
    }
  }

  value(field, row) {
    const { values, rows } = this.columns[field];
    return values[rows[row]];
  }

  varies(field) {
    return this.columns[field]?.values.length > 1;
  }

  isKnown(field) {
    return this.varies(field) || this.columns[field].values[0] !== null;
  }

  search(text) {
    this.wanted = text.toLowerCase();
    const hits = this.searched.map((field) => {
      const column = this.columns[field];
      column.lower ??= column.values.map((item) => String(item ?? "").toLowerCase());
      return [column.rows, column.lower.map((text) => text.includes(this.wanted))];
    });
    this.found = this.wanted ? this.all.map((row) => hits.some(([rows, hit]) => hit[rows[row]])) : null;
  }

  sortBy(field, descending) {
    this.sorted = { field, descending };
  }

  /** Rows that pass all filters, ignoring that of one field. */
  matching(except) {
    const facets = this.facets.filter((field) => field !== except && this.chosen[field].size);
    const tests = facets.map((field) => [this.chosen[field], this.columns[field].rows]);
    return this.all.filter(
      (row) => (!this.found || this.found[row]) && tests.every(([indexes, rows]) => indexes.has(rows[row])),
    );
  }

  /** Number of rows with each value of a field, ignoring its own filter. */
  counts(field) {
    const { values, rows } = this.columns[field];
    const counts = values.map(() => 0);
    for (const row of this.matching(field)) counts[rows[row]]++;
    return counts;
  }

  inOrder() {
    const { field, descending } = this.sorted;
    if (!field) return this.matching();
    const rank = this.ranks(field);
    const { rows } = this.columns[field];
    const sign = descending ? -1 : 1;
    return this.matching().sort((a, b) => {
      const [left, right] = [rank[rows[a]], rank[rows[b]]];
      return (left === Infinity) - (right === Infinity) || sign * (left - right) || a - b;
    });
  }

  /** Rank of each value of a field: numbers by size, "10" after "9", missing values last. */
  ranks(field) {
    const { values } = this.columns[field];
    const isNumber = values.every((item) => item === null || typeof item === "number");
    const compare = isNumber ? (a, b) => a - b : Rows.#collator.compare;
    const known = [...values.keys()].filter((index) => values[index] !== null);
    const ranks = values.map(() => Infinity);
    known.sort((a, b) => compare(values[a], values[b])).forEach((index, rank) => (ranks[index] = rank));
    return ranks;
  }
}
