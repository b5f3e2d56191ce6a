"""Data as large as MetaMathQA, made of few rows, and the memory of a process tree."""

import json
import os
import threading
from pathlib import Path

import psutil

from pipeline.config import DataConfig, FieldNames

_SENTENCE = "Each of the {n} boxes holds 12 pens, so {n} x 12 = {total} pens are in the boxes in all. "


def metamath_like(path: Path, num_rows: int) -> DataConfig:
    """A JSONL file with about 200 letters of query and 600 of response per row. Rows differ by a number."""
    with path.open("w") as file:
        for n in range(num_rows):
            query = f"A shop got {n} boxes with 12 pens each. " + "How many pens is that, taken together? " * 4
            response = _SENTENCE.format(n=n, total=12 * n) * 7 + f"\n#### {12 * n}\nThe answer is: {12 * n}"
            file.write(json.dumps({"query": query, "response": response, "type": "GSM_AnsAug"}) + "\n")
    fields = FieldNames(question="query", answer="response", type="type")
    return DataConfig(name=str(path), fields=fields, answer_format="phrase", prompt_template="metamath")


class PeakMemory:
    """Samples the memory of a process and all its descendants while the block lasts.

    A page that n processes share counts 1/n in each (PSS): the sum counts it once. It includes pages of mapped files
    and of the object store.

    Args:
        pid: the process. None: this one.
    """

    def __init__(self, interval_s: float = 0.5, pid: int | None = None) -> None:
        self._interval_s, self._stop, self._pid = interval_s, threading.Event(), pid
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.start_mib = self.peak_mib = 0.0
        self.at_peak: dict[str, float] = {}
        """MiB by the name of the process."""

    def __enter__(self) -> "PeakMemory":
        self.start_mib = self.peak_mib = sum(tree_pss_mib(self._pid).values())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def above_start_mib(self) -> float:
        return self.peak_mib - self.start_mib

    def _sample(self) -> None:
        while not self._stop.wait(self._interval_s):
            by_name = tree_pss_mib(self._pid)
            if sum(by_name.values()) > self.peak_mib:
                self.peak_mib, self.at_peak = sum(by_name.values()), by_name


def tree_pss_mib(pid: int | None = None) -> dict[str, float]:
    """Proportional set size of a process (None: this one) and all its descendants, by name."""
    sizes: dict[str, float] = {}
    for process in _tree(pid or os.getpid()):
        try:
            name, lines = process.name(), Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except (OSError, psutil.Error):  # it has ended
            continue
        kib = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
        sizes[name] = sizes.get(name, 0.0) + kib / 1024
    return sizes


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:  # it has ended
        return []
