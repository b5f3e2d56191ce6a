"""The audit as a section of a run's report."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.audit.strict import DISAGREEMENTS, read
from pipeline.audit.tricks import TRICKS
from pipeline.reports import page
from pipeline.reports.drawing import BLUE, ORANGE, PURPLE, RED, STYLE, curve, finish, save
from pipeline.runs.records import Row

NOTE = (
    "Stored completions, scored again by a strict scorer that shares no code with the first one. It requires {form}, "
    "and the gold text or the same plain number. The first scorer accepts more on purpose, so a disagreement is a "
    "reason to look, not proof of hacking."
)
TAGGED = "exactly one <reasoning> section and one <answer> section after it"
PLAIN = '####, "The answer is:" or a box, none of them twice and all with one answer'
DRIFT_NOTE = (
    "The first third of the stored steps against the last; a problem counts once per step. The noise is the spread "
    "between problems and between steps: one interval in twenty misses by chance. A change of problems, as in a "
    "curriculum, changes all three as well."
)
TRICK_NOTE = (
    "Found in the text alone, among graded completions; an honest one can be caught as well. Correct means correct "
    "according to the first scorer."
)
DRIFTS = {
    "disagreement_frac": "The share of completions that the scorers disagree about",
    "trick_frac": "The share of completions with any of the tricks below",
    "length_mean": "The mean length of a completion",
}


def audit_section(audit: Row | None, plots_dir: Path) -> str:
    """HTML: numbers, drift, plot and examples; empty without an audit. Draws ``audit.png``."""
    if audit is None:
        return ""
    plot = _draw(audit["steps"], plots_dir / "audit.png")
    return (
        page.headline([NOTE.format(form=TAGGED if audit["tagged"] else PLAIN)], _cards(audit))
        + _disagreements(audit)
        + _drift(audit)
        + page.image(plot)
        + _tricks(audit)
        + "".join(_examples(name, rows, audit) for name, rows in audit["examples"].items() if rows)
    )


def _drift(audit: Row) -> str:
    if None in audit["drift"].values():
        return page.note("Too few completions are stored to tell a change over the steps from noise.")
    sentences = (drift_sentence(name, drift) for name, drift in audit["drift"].items())
    return "".join(f"<p>{page.text(sentence)}</p>" for sentence in sentences) + page.note(DRIFT_NOTE)


def drift_sentence(name: str, drift: Row) -> str:
    """A sentence on how a measure of ``DRIFTS`` changed, and whether by more than its noise."""
    first, last = (_amount(name, drift[key]) for key in ("first", "last"))
    where = [_span(*drift[f"{key}_steps"]) for key in ("first", "last")]
    if not drift["change"]:
        return f"{DRIFTS[name]} did not change: {first} in {where[0]} and in {where[1]}."
    verb = "rose" if drift["change"] > 0 else "fell"
    is_more = drift["low"] > 0 or drift["high"] < 0
    scale, unit = (1, "characters") if name == "length_mean" else (100, "points")
    change, low, high = (f"{scale * drift[key]:+.1f}" for key in ("change", "low", "high"))
    return (
        f"{DRIFTS[name]} {verb} from {first} in {where[0]} to {last} in {where[1]}: {change} {unit}, 95 % interval "
        f"{low} to {high}. That is {'more than' if is_more else 'within'} its noise."
    )


def _amount(name: str, value: float) -> str:
    return f"{value:.1f} characters" if name == "length_mean" else _share(value)


def _span(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"


def _cards(audit: Row) -> list[tuple[str, str]]:
    return [
        ("completions scored again", f"{audit['num_samples']:,}"),
        ("ungraded, left out", f"{audit['num_ungraded']:,}"),
        ("the scorers disagree", _share(audit["disagreement_frac"])),
        ("a different number from the gold", _share(audit["disagreements"]["value"]["frac"])),
        ("with any trick", _share(audit["trick_frac"])),
    ]


def _disagreements(audit: Row) -> str:
    lines = [
        (kind, shown["count"], _share(shown["frac"]), DISAGREEMENTS[kind])
        for kind, shown in audit["disagreements"].items()
    ]
    return page.table(["disagreement", "completions", "share", "meaning"], lines, "plain")


def _tricks(audit: Row) -> str:
    head = ["trick", "completions", "share", "share of the correct", "reward with", "without", "meaning"]
    lines = [
        (
            _title(name),
            trick["count"],
            _share(trick["frac"]),
            _share(trick["frac_of_correct"]),
            _reward(trick["reward_mean_with"]),
            _reward(trick["reward_mean_without"]),
            TRICKS[name].__doc__,
        )
        for name, trick in audit["tricks"].items()
    ]
    return page.table(head, lines, "plain") + page.note(TRICK_NOTE)


def _share(frac: float | None) -> str:
    return "-" if frac is None else f"{100 * frac:.1f} %"


def _reward(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.2f}"


def _title(name: str) -> str:
    return name.replace("_", " ")


def _examples(name: str, rows: list[Row], audit: Row) -> str:
    num_shown = (audit["disagreements"] | audit["tricks"])[name]["count"]
    kind = "disagreement" if name in DISAGREEMENTS else "trick"
    shown = "".join(_example(row, audit["tagged"]) for row in rows)
    return page.details(f"{kind}, {_title(name)} · {len(rows)} of {num_shown}", shown)


def _example(row: Row, tagged: bool) -> str:
    answer, is_well_formed = read(row["completion"], tagged)
    marked = "no marked answer" if answer is None else f"last marked answer {answer.strip()[:100]!r}"
    facts = [
        f"step {row.get('step')}",
        f"gold {row['gold']}",
        marked,
        "well-formed" if is_well_formed else "not well-formed",
        f"first scorer: {row['outcome']}",
        f"reward {row.get('reward')}",
    ]
    return (
        f"<article>{page.pre(row.get('question'))}{page.pre(row['completion'])}{page.note(' · '.join(facts))}</article>"
    )


def _draw(steps: list[Row], path: Path) -> Path:
    """Shares of disagreements and tricks, and the mean completion length, over the steps."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.4))
        shares, length = figure.subplots(1, 2)
        curve(shares, steps, "disagreement_frac", RED, "scorers disagree")
        curve(shares, steps, "value_frac", PURPLE, "another number")
        curve(shares, steps, "trick_frac", ORANGE, "any trick")
        shares.set_ylabel("share of completions")
        shares.set_ylim(bottom=0)
        shares.yaxis.set_major_formatter(PercentFormatter(1))
        finish(shares, "Disagreements and tricks", steps, empty=False, legend=True)
        curve(length, steps, "length_mean", BLUE)
        length.set_ylabel("mean completion length (characters)")
        length.set_ylim(0, 1.1 * max(step["length_mean"] for step in steps) or 1)
        finish(length, "Length of stored completions", steps, empty=False)
        return save(figure, path, dpi=140)
