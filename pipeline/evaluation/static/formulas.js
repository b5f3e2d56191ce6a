"use strict";

// Splits text into plain text and LaTeX between $...$, $$...$$, \(...\) or \[...\], which Temml renders.
// Both may be hostile. A formula that Temml cannot read stays text.
const formulas = (() => {
  const MAX_CHARS = 2000; // of a formula; a longer or deeper one would freeze the page
  const MAX_DEPTH = 40;
  const MAX_FORMULAS = 500; // in a text, and their characters
  const MAX_TOTAL_CHARS = 50000;
  const OPTIONS = { trust: false, throwOnError: false, maxExpand: 1000, maxSize: [20, 200], wrap: "tex" };
  // Expanding definitions can take unbounded memory; \char makes invisible characters.
  const REFUSED = /\\(?:[gex]?def|let|futurelet|global|(?:new|renew|provide)command|char|definecolor)(?![a-zA-Z])/;
  // Dollars as pandoc reads them, so that "$5 and $6" stays text: no white space just inside, no digit right after,
  // no empty line in between.
  const FORMULA = new RegExp(
    [
      String.raw`\\[\\$]`,
      String.raw`\$\$((?:\\[^]|[^\\])+?)\$\$`,
      String.raw`\\\[((?:\\[^[\]]|[^\\])+?)\\\]`,
      String.raw`\\\(((?:\\[^()]|[^\\])+?)\\\)`,
      String.raw`\$(?!\s)((?:\\[^]|[^\\$\n]|\n(?![ \t]*\n))+?)(?<!\s)\$(?!\d)`,
    ].join("|"),
    "g",
  );

  /** bare: the whole text may be a formula without delimiters. */
  function fill(box, text, bare) {
    const matches = [...text.matchAll(FORMULA)];
    if (bare && /[\\^_]/.test(text) && matches.every(([source]) => source.length === 2)) {
      return box.replaceChildren(formula(text, false, text));
    }
    const parts = [];
    let end = 0;
    let totalChars = 0;
    for (const match of matches.slice(0, MAX_FORMULAS)) {
      const [source, dollars, brackets, parentheses, dollar] = match;
      const tex = dollars ?? brackets ?? parentheses ?? dollar;
      totalChars += source.length;
      if (totalChars > MAX_TOTAL_CHARS) break;
      const isBlock = (dollars ?? brackets) !== undefined;
      parts.push(text.slice(end, match.index), tex === undefined ? source : formula(tex, isBlock, source));
      end = match.index + source.length;
    }
    return box.replaceChildren(...parts, text.slice(end));
  }

  function formula(tex, displayMode, source) {
    if (tex.length > MAX_CHARS || REFUSED.test(tex)) return source;
    const box = document.createElement("span");
    try {
      temml.render(tex, box, { ...OPTIONS, displayMode });
    } catch {
      return source; // hostile TeX can raise errors other than Temml's own
    }
    if (box.querySelector(".temml-error") || depth(box) > MAX_DEPTH) return source;
    for (const made of box.querySelectorAll("[id], [href]")) {
      made.removeAttribute("id");
      made.removeAttribute("href");
    }
    return box;
  }

  const depth = (node) => 1 + Math.max(0, ...[...node.children].map(depth));

  return { fill };
})();
