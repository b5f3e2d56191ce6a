"""A report page with a browser over completions, as a single file that makes no requests.

The rows are embedded as base64 of gzip, which no text can break out of. Chromium (80), Firefox (113) and Safari (16.4)
can decompress it, and 10,000 completions of 1.5 kB fit in an e-mail. The code of the page is in ``static/``.
"""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.evaluation.results import COLUMNS
from pipeline.reports import page

FIELDS = tuple(COLUMNS)
"""The fields of a row of eval_results.jsonl that the browser shows. A row may lack any of them."""
_SCRIPTS = ("temml.min.js", "formulas.js", "rows.js", "browser.js")
_STATIC = Path(__file__).parent / "static"


def browser_page(title: str, headline: str, sections: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A report that ends with a browser over completions: filters, search, sorting, and each completion in full.

    Args:
        headline: HTML from ``page.headline``.
        sections: HTML by heading, as for ``page.build``.
        rows: one per completion, with FIELDS. Their texts may be hostile.
    """
    browser = f'{_static("browser.html")}<script type="application/gzip" id="rows">{_packed(rows)}</script>'
    return page.build(
        title,
        headline,
        {**sections, "Completions": browser if rows else page.note("No completions.")},
        style=_static("temml.css") + _static("browser.css"),
        scripts=[_static(name) for name in _SCRIPTS] if rows else [],
    )


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _packed(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = {field: _column([row.get(field) for row in rows]) for field in FIELDS}
    text = json.dumps(columns, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _column(items: Sequence[Any]) -> dict[str, list[Any]]:
    """Stores equal values once: all samples of a problem have the same prompt."""
    indexes: dict[Any, int] = {}
    rows = [indexes.setdefault(_plain(item), len(indexes)) for item in items]
    return {"values": list(indexes), "rows": rows}


def _plain(item: Any) -> Any:
    """A value that JSON can hold, with invisible characters spelled out."""
    if item is None or isinstance(item, bool | int):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    return page.visible(item)
