"""The file of a run's page: curves, accuracy, the atlas of problems, groups with their completions.

plotly draws the curves. Its code lies in the page, compressed, as do the completions: a part is unpacked when it is
looked at.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path

from pipeline.evaluation.browser import View, browser, browser_scripts, browser_style, packed, to_json
from pipeline.reports import page
from pipeline.reports.accuracy import accuracy_section
from pipeline.run_page.completions import completions, stored_steps
from pipeline.run_page.state import PROBLEM_FIELDS, Cursor, RunState
from pipeline.runs.records import Row

CHARS_PER_PART = 1_000_000
MAX_COMPLETIONS = 20_000
"""In a report, the newest. The live page reads any of them when it is asked."""
_SCRIPTS = ("curves.js", "groups.js", "run.js")
_STATIC = Path(__file__).parent / "static"

PROBLEMS = View(
    item="problem",
    file="metrics/problems.parquet",
    fields=PROBLEM_FIELDS,
    facets=("label", "level", "type", "source"),
    searched=("problem_id", "question", "gold"),
    columns=(
        *("problem_id", "label", "last_step", "mean", "low", "best", "solved", "attempts"),
        *("level", "type", "source"),
    ),
    numbers=("mean", "low", "best", "solved", "attempts"),
    facts=("label", "mean", "low", "high", "best", "solved", "attempts", "last_step", "level", "type", "source"),
    texts=(("question",), ("gold",)),
    folded={},
    answers=("gold",),
    names={
        **{"problem_id": "problem", "last_step": "steps", "mean": "solve rate", "low": "at least", "high": "at most"},
        **{"best": "best so far"},
    },
)
_ATLAS_NOTE = (
    "Every problem by step: blue where it was solved, red where it was not. The solve rate is the mean of a posterior "
    "with a uniform prior, in which every step that asks the problem again halves the weight of what was known before; "
    "at least and at most are its 5 % and 95 % quantiles. Learned: the share of correct attempts rose by a quarter or "
    "more, which chance does not explain, and has not fallen since. Forgotten: it fell so and has not risen since. "
    "Solved from the start: no such change, and solved in more than half of the attempts with 95 % certainty."
)


def run_page(
    state: RunState, headline: str, sections: Mapping[str, str], *, picture: Path | None = None, is_live: bool = False
) -> str:
    """HTML. Sections without content are left out.

    Args:
        state: what was read of the run.
        sections: HTML of what follows, by heading.
        picture: the curves for browsers without scripts.
        is_live: the page asks its server for what comes later.
    """
    parts, chunks = ([], {}) if is_live or not state.groups else _completions(state.run_dir)
    data = {**state.since(Cursor()), "cursor": vars(state.cursor), "isLive": is_live, "chunks": chunks}
    data.pop("problems")
    has_curves, has_atlas = bool(state.metrics) or is_live, bool(state.groups) or is_live
    accuracy = f'<div id="accuracy">{accuracy_section(state.evaluations)}</div>'
    own = {
        "Curves": _curves(picture) if has_curves else "",
        "Accuracy on held-out problems": accuracy if state.evaluations or is_live else "",
        "Problems": _atlas(state) if has_atlas else "",
        "Newest groups": _static("groups.html") + "".join(parts) if has_atlas else "",
    }
    return page.build(
        state.run_dir.resolve().name,
        ('<p id="live" class="soft" role="status"></p>' if is_live else "") + headline + packed("run", to_json(data)),
        {**own, **sections},
        style=browser_style() + _static("run.css"),
        scripts=[*browser_scripts(), *map(_static, _SCRIPTS)] if has_curves or has_atlas else [],
        later=[_plotly()] if has_curves else [],
        is_served=is_live,
    )


def _curves(picture: Path | None) -> str:
    shown = f"<noscript>{page.image(picture)}</noscript>" if picture else ""
    return _static("curves.html") + shown + _packed_plotly()


def _atlas(state: RunState) -> str:
    left_out = state.num_untried_left_out
    cut = f"{left_out:,} more that were never tried are in metrics/problems.parquet. " if left_out else ""
    return page.note(cut + _ATLAS_NOTE) + browser(PROBLEMS, state.problems)


def _completions(run_dir: Path) -> tuple[list[str], dict[int, int]]:
    """Packed parts, and the number of the part that has a step."""
    parts: list[str] = []
    chunks: dict[int, int] = {}
    for number, steps in enumerate(_parts(run_dir)):
        parts.append(packed(f"completions-{number}", to_json(steps)))
        chunks |= dict.fromkeys(steps, number)
    return parts, chunks


def _parts(run_dir: Path) -> Iterator[dict[int, list[Row]]]:
    """Completions by step, newest first, in parts of about ``CHARS_PER_PART``."""
    steps: dict[int, list[Row]] = {}
    size = count = 0
    for step in sorted(stored_steps(run_dir), reverse=True):
        steps[step] = completions(run_dir, step)
        size += sum(len(row["text"]) for row in steps[step])
        count += len(steps[step])
        if size > CHARS_PER_PART:
            yield steps
            steps, size = {}, 0
        if count >= MAX_COMPLETIONS:
            break
    if steps:
        yield steps


@lru_cache(maxsize=1)
def _plotly() -> str:
    path = distribution("plotly").locate_file("plotly/package_data/plotly.min.js")
    return Path(str(path)).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    return packed("plotly", _plotly().encode())


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")
