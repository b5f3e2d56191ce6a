"use strict";

// Groups with their completions. Models wrote the texts: they are only ever inserted as text.
class Groups {
  static #FIELDS = ["problem", "step", "stage", "solved", "attempts", "truncated", "tokens", "reward_mean",
    "reward_std", "use", "mean", "low", "high", "position", "is_stored"];
  static #DROPPED = ["refilled", "surplus", "stage_ended"];
  static #MAX_CACHED = 40;
  #loaded = new Map(); // step -> promise of its completions, oldest first
  #lastTokens = 0;
  #tokens = new Map(); // step -> sampled tokens up to it

  /**
   * rows: arrays of the fields above. problem: the row of a place in the list of problems. load: a step's completions.
   */
  constructor(problem, load) {
    this.problem = problem;
    this.load = load;
    this.all = [];
    this.byProblem = new Map();
    this.lastStep = 1;
  }

  add(rows) {
    for (const row of rows) {
      const group = Object.fromEntries(Groups.#FIELDS.map((field, i) => [field, row[i]]));
      this.all.push(group);
      if (!this.byProblem.has(group.problem)) this.byProblem.set(group.problem, []);
      this.byProblem.get(group.problem).push(group);
      this.lastStep = Math.max(this.lastStep, group.step);
      this.#tokens.set(group.step, (this.#lastTokens += group.tokens));
    }
  }

  of(problem) {
    return this.byProblem.get(problem) ?? [];
  }

  /** Sampled tokens up to a step, of rejected groups too. */
  tokensAt = (step) => {
    for (let known = step; known > 0; known--) if (this.#tokens.has(known)) return this.#tokens.get(known);
    return 0;
  };

  get hasTokens() {
    return this.#lastTokens > 0;
  }

  #completions(step) {
    if (!this.#loaded.has(step)) this.#loaded.set(step, this.load(step));
    if (this.#loaded.size > Groups.#MAX_CACHED) this.#loaded.delete(this.#loaded.keys().next().value);
    return this.#loaded.get(step);
  }

  static make(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  static #number = (value) =>
    typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 3 }) : String(value ?? "–");

  /** The steps of a problem as cells. */
  strip(problem) {
    const judged = this.of(problem).filter((group) => group.attempts);
    const size = Math.max(2, 100 / this.lastStep); // percent, as all of these
    const starts = judged.map(({ step }) => ((step - 1) / this.lastStep) * (100 - size));
    const stops = [];
    let end = 0;
    for (const [i, { solved, attempts }] of judged.entries()) {
      const color = `color-mix(in oklab, #2b6cb0 ${(100 * solved) / attempts}%, #e0705f)`;
      stops.push(`transparent ${end}% ${starts[i]}%`);
      end = Math.min(starts[i] + size, starts[i + 1] ?? 100);
      stops.push(`${color} ${starts[i]}% ${end}%`);
    }
    stops.push(`transparent ${end}% 100%`);
    const strip = Groups.make("div", { className: "strip", role: "img" });
    strip.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    const words = judged.slice(-6).map(({ step, solved, attempts }) => `step ${step}: ${solved} of ${attempts}`);
    strip.title = strip.ariaLabel = words.join(", ") || "never tried";
    return strip;
  }

  /** Why nothing of a group is stored. */
  static #lack({ use, is_stored }) {
    if (Groups.#DROPPED.includes(use)) return "completions of dropped groups are not stored";
    return is_stored ? "" : "completions not stored";
  }

  /** A group to unfold. */
  block(group, { raw = false, named = false, open = false } = {}) {
    const number = Groups.#number;
    const facts = [
      `step ${group.step}`,
      named ? this.problem(group.problem).problem_id : "",
      `${group.solved} of ${group.attempts} solved`,
      group.reward_mean === null ? "" : `reward ${number(group.reward_mean)} ± ${number(group.reward_std)}`,
      `${number(group.tokens)} tokens`,
      group.use.replaceAll("_", " "),
      Groups.#lack(group),
    ].filter(Boolean);
    const line = facts.join(" · ");
    if (!group.is_stored && !named) return Groups.make("p", { className: "soft" }, line);
    const block = Groups.make("details", {}, Groups.make("summary", {}, line));
    block.addEventListener("toggle", () => block.open && this.#fill(block, group, raw, named), { once: true });
    block.open = open && group.is_stored;
    return block;
  }

  /** The completions of a group among those of its step: by position or, where none is recorded, by equal shares. */
  #own(group, completions) {
    const { problem_id } = this.problem(group.problem);
    const same = completions.filter((one) => one.problem_id === problem_id);
    if (same.some((one) => one.position !== null)) return same.filter((one) => one.position === group.position);
    const groups = this.of(group.problem).filter(({ step, is_stored }) => step === group.step && is_stored);
    const share = same.length / groups.length;
    const turn = groups.indexOf(group);
    return same.slice(turn * share, (turn + 1) * share);
  }

  async #fill(block, group, raw, named) {
    const { question, gold } = this.problem(group.problem);
    if (named) block.append(this.#text("Question", question, raw), this.#text("Gold", gold, raw));
    if (!group.is_stored) return;
    try {
      const own = this.#own(group, await this.#completions(group.step));
      block.append(...own.map((one) => this.#completion(one, raw)));
      if (!own.length) block.append("The report holds newer completions only: samples/ or rollouts/ has these.");
    } catch (error) {
      block.append(`Completions of this step cannot be read (${error.message}).`);
    }
  }

  #text(title, text, raw) {
    return Groups.make("div", {}, Groups.make("h4", {}, title), this.#box(text, raw));
  }

  #box(text, raw) {
    const box = Groups.make("div", { className: "text" });
    if (raw) box.append(String(text ?? "–"));
    else formulas.fill(box, String(text ?? "–"), false);
    return box;
  }

  #completion({ text, answer, parts, reward, outcome, stop_reason }, raw) {
    const number = Groups.#number;
    const named = Object.entries(parts).map(([name, value]) => `${name} ${number(value)}`);
    const facts = Groups.make("p", {});
    const verdict = Groups.make("b", {}, String(outcome ?? "–"));
    verdict.dataset.outcome = String(outcome);
    const found = answer === null ? "no answer found" : `answer found: ${answer}`;
    const rest = [found, `reward ${number(reward)}`, named.join(", "), stop_reason === "length" ? "cut off" : ""];
    facts.append(verdict, ` · ${rest.filter(Boolean).join(" · ")}`);
    return Groups.make("div", { className: "attempt" }, facts, this.#box(text, raw));
  }
}
