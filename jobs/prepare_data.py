"""Prepare data for training.

python jobs/prepare_data.py split --data NAME_OR_PATH --output DIR [--stratify-by level,type] [--test-fraction 0.2]
python jobs/prepare_data.py rate --data NAME_OR_PATH ... --output DIR [--min-quality 0.8] [--levels L ...]
python jobs/prepare_data.py student --written RUN_OR_FILE --data embedded:stories --output DIR
python jobs/prepare_data.py omcq SOURCE ... --output FILE.jsonl [--max-samples N]
python jobs/prepare_data.py omcq-from-facts --facts FILE --output DIR [--max-facts N] [--num-test N] [--bank-size N]
python jobs/prepare_data.py knowledge SOURCE ... --output FILE.jsonl [--model NAME] [--knowledge-length N]
python jobs/prepare_data.py check FILE --model NAME [--max-length N]
"""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs._prepare_options import parse
from pipeline.cli import user_errors

if TYPE_CHECKING:
    from collections import Counter

    from pipeline.data.splits.records import LeftOut


def main(argv: Sequence[str] | None = None) -> None:
    arguments = vars(parse(__doc__, argv))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = arguments.pop("command")
    with user_errors("interrupted: nothing was written."):
        if command == "check":
            sys.exit(_check(arguments))
        prepare = {
            "split": _split,
            "rate": _rate,
            "student": _student,
            "omcq": _omcq,
            "omcq-from-facts": _omcq_from_facts,
            "knowledge": _knowledge,
        }[command]
        prepare(arguments)
        print(arguments["output"])


def _split(arguments: dict[str, Any]) -> None:
    from pipeline.data.splits import SplitSettings, prepare_split

    arguments["stratify_by"] = tuple(arguments["stratify_by"].split(","))
    split = prepare_split(SplitSettings(**arguments))
    _print_counts("level", split.counts(lambda record: record.level))
    if "type" in arguments["stratify_by"]:
        _print_counts("type", split.counts(lambda record: record.type))
    _print_left_out(split.left_out)
    for note in split.notes:
        print(f"note: {note}")


def _rate(arguments: dict[str, Any]) -> None:
    from pipeline.questions.ratings import RateSettings, rate, write_ratings

    settings = RateSettings(**arguments)
    ratings = rate(settings)
    write_ratings(settings, ratings)
    mean = sum(ratings.qualities) / len(ratings.qualities)
    print(f"kept {len(ratings.kept):,} of {len(ratings.qualities):,} rated problems, whose mean quality is {mean:.2f}")
    _print_left_out(ratings.left_out)


def _student(arguments: dict[str, Any]) -> None:
    from pipeline.questions.student import StudentSettings, prepare_student

    data = prepare_student(StudentSettings(**arguments))
    for side in data.train:
        counts = data.counts(side)
        levels = ", ".join(f"{level}: {count:,}" for level, count in counts["levels"].items())
        print(f"{side}: {counts['num_problems']:,} problems, {counts['num_tokens']:,} tokens (by level: {levels})")
        for reason, count in data.left_out[side].items():
            print(f"  left out: {count:,} {reason}")
    print(f"held out: {len(data.test):,} problems")


def _omcq(arguments: dict[str, Any]) -> None:
    from actors.driver.convert import convert_files
    from pipeline.data.omcq.convert import ConvertSettings
    from pipeline.data.omcq.output import OmcqSettings, convert_omcq

    names = ("request", "answer", "answer_lead", "max_chars")
    convert = {name: value for name in names if (value := arguments.pop(name)) is not None}
    arguments["sources"] = tuple(arguments["sources"])
    settings = OmcqSettings(**arguments, convert=ConvertSettings(**convert))
    counts = convert_omcq(settings, convert_files)
    print(f"converted {counts.num_converted:,} rows, rejected {counts.rejected.total():,}")
    if counts.rejected:
        _print_reasons(counts.rejected)
        print(f"examples of rejected rows: {settings.rejected}")


def _omcq_from_facts(arguments: dict[str, Any]) -> None:
    from pipeline.data.omcq.from_facts import FactSettings, prepare_facts

    arguments["relations"] = tuple(arguments["relations"])
    chosen = {name: value for name, value in arguments.items() if value is not None}
    questions = prepare_facts(FactSettings(**chosen))
    _print_counts("relation", questions.counts())
    print(f"{len(questions.knowledge):,} entries of knowledge")
    for reason, count in sorted(questions.left_out.items()):
        print(f"  not asked about: {count:,} facts: {reason}")
    for name, accuracy in questions.priors().items():
        print(f"{name.replace('_', ' ')}: {accuracy:.1%} of the test questions")


def _knowledge(arguments: dict[str, Any]) -> None:
    from pipeline.data.omcq.knowledge import prepare_knowledge

    name, length = arguments.pop("model"), arguments.pop("knowledge_length")
    found = prepare_knowledge(**arguments)
    print(f"{len(found.texts):,} entries of knowledge, rejected {found.rejected.total():,} rows")
    if found.rejected:
        _print_reasons(found.rejected)
    if name:
        from pipeline.config import ModelConfig
        from pipeline.models.hub import resolve_model
        from pipeline.models.memory.entries import entry_token_ids
        from pipeline.models.tokenizer import load_tokenizer

        model = ModelConfig(name=name)
        _, num_cut = entry_token_ids(load_tokenizer(resolve_model(model), model, chat=False), found.texts, length)
        print(f"{num_cut:,} are longer than {length} tokens and would be cut off")


def _check(arguments: dict[str, Any]) -> int:
    from pipeline.config import ModelConfig
    from pipeline.curriculum.conversation_check import check_conversations, quantiles

    model = ModelConfig(name=arguments["model"])
    checked = check_conversations(arguments["file"], model, arguments["max_length"], arguments["examples"])
    for parts in checked.examples:
        print("".join(_shown(text, is_learned=is_learned) for text, is_learned in parts), end="\n\n")
    print(f"{len(checked.num_tokens):,} conversations, {sum(checked.num_learned):,} learned tokens")
    if checked.num_tokens:
        for name, numbers in (("tokens", checked.num_tokens), ("learned tokens", checked.num_learned)):
            print(f"{name}: " + ", ".join(f"{key} {number:,}" for key, number in quantiles(numbers).items()))
    for message in checked.messages:
        print(message, file=sys.stderr)
    for reason, count in checked.faults.items():
        print(f"error: {arguments['file']}: {count:,} rows would not train: {reason}", file=sys.stderr)
    return 1 if checked.faults else 0


def _shown(text: str, *, is_learned: bool) -> str:
    if not is_learned:
        return text
    return f"\x1b[32m{text}\x1b[0m" if sys.stdout.isatty() else f"【{text}】"


def _print_reasons(reasons: "Counter[str]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("rejected because", show_footer=False)
    table.add_column("rows", justify="right")
    for reason, count in reasons.most_common():
        table.add_row(Text(reason), f"{count:,}")
    Console().print(table)


def _print_counts(by: str, counts: dict[str, dict[str, int]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_footer=True)
    total = {side: sum(count[side] for count in counts.values()) for side in ("train", "test")}
    table.add_column(by, "total")
    for heading, footer in zip(("train", "test", "both", "test share"), _cells(total), strict=True):
        table.add_column(heading, footer, justify="right")
    for name, count in counts.items():
        table.add_row(Text(name), *_cells(count))
    Console().print(table)


def _cells(count: dict[str, int]) -> tuple[str, ...]:
    both = count["train"] + count["test"]
    return f"{count['train']:,}", f"{count['test']:,}", f"{both:,}", f"{count['test'] / both:.2%}"


def _print_left_out(left_out: "LeftOut") -> None:
    print(f"rows left out: {left_out.counts.total():,}")
    for line in left_out.lines():
        print(f"  {line}")


if __name__ == "__main__":
    main()
