"""The process that does the mathematics: one JSON job a line in, one word a line out.

Started by ``SandboxedGrader`` with a deadline in seconds and a memory limit in MiB. It ends when its input
does, so it cannot outlive its parent; the kernel's alarm ends it in the middle of any computation, even
when no Python code runs.
"""

import json
import logging
import os
import re
import resource
import signal
import sys
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

_POWER = re.compile(r"(?:\*\*|\^)\s*(-?[0-9]{2,}|[0-9])")
_ROOT = re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)\s*([0-9]+)")
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|cot|sec|csc|ln|log|exp)(?![A-Za-z])")


def compare(answer: str, gold: str) -> str:
    gold_values = _read(gold)
    if not gold_values:
        return "bad_gold"
    return "equal" if verify(gold_values, _read(answer), timeout_seconds=None) else "different"


def _read(text: str) -> list[Any]:
    """Parse the whole text as LaTeX. math-verify's own search for an answer inside a text is not used."""
    text = _ROOT.sub(r"\\sqrt{\1}", _POWER.sub(r"^{\1}", text)).replace("√", "sqrt").replace("∞", r"\infty")
    text = _FUNCTION.sub(r"\\\1 ", text)
    return parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)


def _peak_memory_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmPeak"))


def main() -> None:
    timeout_s, memory_limit_mib = float(sys.argv[1]), int(sys.argv[2])
    logging.disable()
    compare("x^2 + 2x + 1", "(x + 1)^2")  # loads what sympy loads late, before the first deadline runs
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    limit = memory_limit_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for ability in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
        resource.setrlimit(ability, (0, 0))  # writes no files, starts no processes
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        reply = compare(**json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        # sympy swallows a MemoryError and goes on with "not equal": such a reply is not to be trusted.
        if reply != "equal" and _peak_memory_mib() > memory_limit_mib / 2:
            return
        print(reply, file=replies, flush=True)


if __name__ == "__main__":
    main()
