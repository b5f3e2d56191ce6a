"use strict";

// Curves of a run, drawn by plotly. Names come from data, and plotly reads tags in them: they are escaped.
const curves = (() => {
  const COLORS = ["#2b6cb0", "#dd7a1f", "#2f8f5b", "#7a5ab5", "#c0392b", "#66717c"];
  const MIN_SPAN = 1e-4; // of an axis: less is noise of rounding
  const MAX_POINTS = 400;
  const SFT = ["sft", "memory_sft", "router"];
  const PLOTS = [
    { title: "Reward", unit: "mean over completions", has: (key) => key === "reward_mean" || /^reward\//.test(key) },
    { title: "Answer accuracy on held-out problems", unit: "share", keys: ["eval_answer_accuracy"], evaluated: true },
    {
      title: "Verdicts",
      unit: "share",
      keys: ["correct_frac", "unparsed_frac", "truncated_frac", "timeout_frac", "zero_variance_frac"],
    },
    {
      title: "Completion length",
      unit: "tokens",
      keys: ["completion_length_mean", "completion_length_min", "completion_length_max"],
    },
    { title: "Entropy", unit: "nats per token", keys: ["entropy"] },
    { title: "GRPO loss", unit: "", keys: ["loss"], kinds: ["grpo"] },
    { title: "Loss of fine-tuning", unit: "nats", keys: ["loss", "eval_loss"], kinds: SFT },
    { title: "Speed", unit: "tokens per second", keys: ["rollout_tokens_per_s", "learner_tokens_per_s"] },
  ];
  const NAMES = {
    reward_mean: "combined",
    eval_answer_accuracy: "while training",
    zero_variance_frac: "groups without variance",
    loss: "training",
    eval_loss: "held-out",
  };
  const CONFIG = { displayModeBar: false, responsive: true };

  const escaped = (text) =>
    String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("$", "&#36;");

  function nameOf(key) {
    const name = NAMES[key] ?? key.replace(/^reward\//, "").replace(/^completion_length_|_frac$|_tokens_per_s$/, "");
    return escaped(name.replaceAll("_", " "));
  }

  /** Means over neighbouring steps, where a curve has more than MAX_POINTS. */
  function thinned(rows, key) {
    const known = rows.filter((row) => typeof row[key] === "number");
    const size = Math.ceil(known.length / MAX_POINTS);
    const points = [];
    for (let start = 0; start < known.length; start += size) {
      const some = known.slice(start, start + size);
      points.push([some.at(-1).step, some.reduce((sum, row) => sum + row[key], 0) / some.length]);
    }
    return points;
  }

  function line(rows, key, xOf, color) {
    const points = thinned(rows, key);
    const few = points.length < 60;
    return {
      x: points.map(([step]) => xOf(step)),
      y: points.map(([, value]) => value),
      name: nameOf(key),
      mode: few ? "lines+markers" : "lines",
      marker: { size: 4 },
      line: { color, width: 1.6 },
    };
  }

  /** Accuracy between stages, with intervals: the measure that metrics have. */
  function measured(evaluations, xOf) {
    const y = evaluations.map((one) => one.answer_accuracy);
    const off = (place, sign) => evaluations.map((one, i) => sign * (one.answer_accuracy_interval[place] - y[i]));
    return {
      x: evaluations.map((one) => xOf(one.step)),
      y,
      text: evaluations.map((one) => escaped(one.name)),
      name: "between stages",
      mode: "lines+markers",
      line: { color: COLORS[1], width: 1.6 },
      error_y: { type: "data", symmetric: false, array: off(1, 1), arrayminus: off(0, -1), thickness: 1 },
      hovertemplate: "%{y:.1%} %{text}",
    };
  }

  /** Room above and below, and never an axis that shows rounding. */
  function range(traces) {
    let [low, high] = [Infinity, -Infinity];
    for (const { y, error_y: bars } of traces) {
      for (const [i, value] of y.entries()) {
        low = Math.min(low, value - (bars?.arrayminus[i] ?? 0));
        high = Math.max(high, value + (bars?.array[i] ?? 0));
      }
    }
    const span = Math.max(high - low, MIN_SPAN, Math.abs(high + low) * 0.02);
    const middle = (low + high) / 2;
    return [middle - 0.55 * span, middle + 0.55 * span];
  }

  function stages(metrics, xOf) {
    return metrics.filter((row, i) => i > 0 && row.stage !== metrics[i - 1].stage).map((row) => ({
      type: "line", x0: xOf(row.step - 1), x1: xOf(row.step - 1), y0: 0, y1: 1, yref: "paper",
      line: { color: "#a3adb8", width: 1, dash: "dash" },
      label: { text: escaped(row.stage.slice(0, 24)), textposition: "end", textangle: 0, font: { size: 9 } },
    }));
  }

  function layout(title, unit, axis, traces, shapes) {
    return {
      title: { text: `<b>${title}</b>`, font: { size: 13 }, x: 0.02 },
      font: { family: "system-ui, sans-serif", size: 11, color: "#2d3640" },
      margin: { l: 58, r: 12, t: 58, b: 42 },
      showlegend: traces.length > 1,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
      hovermode: "x unified",
      xaxis: { title: { text: axis }, exponentformat: "SI", rangemode: "tozero", gridcolor: "#e3e7eb", zeroline: false },
      yaxis: {
        title: { text: unit }, exponentformat: "none", range: range(traces), hoverformat: ".4~r", gridcolor: "#e3e7eb",
        ...(unit === "share" ? { tickformat: "~%", hoverformat: ".1%" } : {}),
      },
      shapes,
    };
  }

  /**
   * place: the element that holds the plots. tokensAt: sampled tokens up to a step, or null to draw against steps.
   */
  function draw(place, metrics, evaluations, tokensAt) {
    const xOf = tokensAt ?? ((step) => step);
    const axis = tokensAt ? "sampled tokens" : "step";
    const keys = [...new Set(metrics.flatMap(Object.keys))].sort();
    const shown = PLOTS.map((plot) => {
      const rows = plot.kinds ? metrics.filter((row) => plot.kinds.includes(row.kind)) : metrics;
      const own = plot.has ? keys.filter(plot.has) : plot.keys;
      own.sort((a, b) => (b === "reward_mean") - (a === "reward_mean"));
      const traces = own.map((key, i) => line(rows, key, xOf, COLORS[i % COLORS.length])).filter(({ x }) => x.length);
      const known = plot.evaluated ? evaluations.filter((one) => "answer_accuracy" in one) : [];
      if (known.length) traces.push(measured(known, xOf));
      return { ...plot, traces };
    }).filter(({ traces }) => traces.length);
    while (place.childElementCount < shown.length) {
      place.append(Object.assign(document.createElement("div"), { className: "curve" }));
    }
    for (const [i, { title, unit, traces }] of shown.entries()) {
      Plotly.react(place.children[i], traces, layout(title, unit, axis, traces, stages(metrics, xOf)), CONFIG);
    }
  }

  /** The posterior of a problem's solve rate over its steps. */
  function drawPosterior(node, groups) {
    const [x, mean, low, high] = ["step", "mean", "low", "high"].map((field) => groups.map((group) => group[field]));
    const edge = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
    const traces = [
      { ...edge, y: low },
      { ...edge, y: high, fill: "tonexty", fillcolor: "rgba(43, 108, 176, .15)" },
      { x, y: mean, mode: "lines+markers", line: { color: COLORS[0] }, hovertemplate: "%{y:.0%}" },
    ];
    const shape = layout("Solve rate", "share", "step", traces, []);
    Plotly.react(node, traces, { ...shape, showlegend: false, yaxis: { ...shape.yaxis, range: [0, 1] } }, CONFIG);
  }

  return { draw, drawPosterior };
})();
