"""placeholder until the page lands"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import page


def browser_page(title: str, headline: str, sections: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    return page.build(title, headline, sections)
