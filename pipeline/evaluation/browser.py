"""A report page with a browser over its rows, as a single file that makes no requests.

The rows are embedded as base64 of gzip, which no text can break out of. Chromium (80), Firefox (113) and Safari (16.4)
can decompress it, and 10,000 completions of 1.5 kB fit in an e-mail. The code of the page is in ``static/``.
"""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from pipeline.evaluation.results import COLUMNS, RESULTS_FILE
from pipeline.reports import page

FIELDS = tuple(COLUMNS)
"""The fields of a row of eval_results.jsonl that the browser shows. A row may lack any of them."""
_SCRIPTS = ("temml.min.js", "formulas.js", "rows.js", "browser.js")
_STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class View:
    """The fields that the browser shows of its rows. ``sample`` among them tells rows of the same name apart."""

    item: str
    """Noun for a row: ``completion``."""
    file: str
    """The file that has the same rows."""
    fields: Sequence[str]
    facets: Sequence[str]
    """Filters by value; in the table only if their values vary. The first one is that of the verdict."""
    searched: Sequence[str]
    columns: Sequence[str]
    """Columns of the table. The first one names the row."""
    numbers: Sequence[str]
    """Columns that are aligned to the right."""
    facts: Sequence[str]
    """Short values of an opened row."""
    texts: Sequence[Sequence[str]]
    """Texts of an opened row. Those of an inner sequence stand side by side."""
    folded: Mapping[str, str]
    """Texts to unfold, shown raw, with their headings."""
    answers: Sequence[str] = ()
    """Texts that may be a formula without delimiters."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of fields that are not read as they are."""

    def name(self, name: str) -> str:
        return self.names.get(name, name.replace("_", " "))


COMPLETIONS = View(
    item="completion",
    file=RESULTS_FILE,
    fields=FIELDS,
    facets=("outcome", "level", "type", "dataset", "model"),
    searched=("question", "completion", "answer", "gold"),
    columns=(
        *("problem_id", "sample", "outcome", "answer", "gold", "num_tokens", "seconds"),
        *("level", "type", "dataset", "model"),
    ),
    numbers=("sample", "num_tokens", "seconds"),
    facts=(
        *("outcome", "strict", "symbolic", "numeric", "method", "model", "dataset", "level", "type", "source"),
        *("difficulty", "num_prompt_tokens", "num_tokens", "seconds", "in_training_data"),
    ),
    texts=(("question",), ("answer", "gold"), ("completion",)),
    folded={"prompt": "Prompt, as the model saw it"},
    answers=("answer", "gold"),
    names={"problem_id": "problem", "num_tokens": "tokens", "num_prompt_tokens": "prompt tokens"},
)


def browser_page(
    title: str,
    headline: str,
    sections: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    view: View = COMPLETIONS,
) -> str:
    """A report that ends with a browser over rows: filters, search, sorting, and each row in full.

    Args:
        headline: HTML from ``page.headline``.
        sections: HTML by heading, as for ``page.build``.
        rows: with the view's fields. Their texts may be hostile.
    """
    items = f"{view.item}s"
    return page.build(
        title,
        headline,
        {**sections, items.capitalize(): browser(view, rows) if rows else page.note(f"No {items}.")},
        style=browser_style(),
        scripts=[*browser_scripts(), "browse();"] if rows else [],
    )


def browser(view: View, rows: Sequence[Mapping[str, Any]]) -> str:
    """HTML of a browser and its rows. ``browse()`` of its scripts starts it."""
    return _browser(view) + packed("rows", to_json(columns(rows, view.fields)))


def browser_style() -> str:
    return _static("temml.css") + _static("browser.css")


def browser_scripts() -> list[str]:
    return [_static(name) for name in _SCRIPTS]


def _browser(view: View) -> str:
    *searched, last = map(view.name, view.searched)
    settings = asdict(view) | {"items": f"{view.item}s", "status": view.facets[0]}
    return Template(_static("browser.html")).substitute(
        item=view.item,
        items=f"{view.item}s".capitalize(),
        file=view.file,
        searched=f"{', '.join(searched)} and {last}",
        view=page.text(json.dumps(settings)),
        texts="\n".join([*(_side_by_side(view, fields) for fields in view.texts), *_folded(view)]),
    )


def _side_by_side(view: View, fields: Sequence[str]) -> str:
    boxes = [f'<h4>{view.name(f).capitalize()}</h4><div class="text" data-field="{f}"></div>' for f in fields]
    if len(boxes) == 1:
        return boxes[0]
    return "\n".join(['<div class="pair">', *(f"<section>{box}</section>" for box in boxes), "</div>"])


def _folded(view: View) -> list[str]:
    return [
        f'<details><summary>{heading}</summary><div class="text" data-field="{name}" data-raw="yes"></div></details>'
        for name, heading in view.folded.items()
    ]


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def packed(name: str, data: bytes) -> str:
    """An element that holds data for the scripts of a page. No text can break out of it."""
    text = base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode()
    return f'<script type="application/gzip" id="{name}">{text}</script>'


def to_json(value: Any) -> bytes:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def columns(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """The rows as the browser reads them."""
    return {name: _column([row.get(name) for row in rows]) for name in fields}


def _column(items: Sequence[Any]) -> dict[str, list[Any]]:
    """Stores equal values once: all samples of a problem have the same prompt."""
    indexes: dict[Any, int] = {}
    rows = [indexes.setdefault(_cell(item), len(indexes)) for item in items]
    return {"values": list(indexes), "rows": rows}


def _cell(item: Any) -> Any:
    return page.visible(item) if isinstance(item, Mapping | list | tuple) else plain(item)


def plain(value: Any) -> Any:
    """A value that JSON can hold, with invisible characters spelled out."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {page.visible(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return page.visible(value)
