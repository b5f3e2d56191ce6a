"""Problems from wherever they are: embedded, local parquet or JSONL, Hugging Face or ModelScope."""

import hashlib
import json
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from pipeline.config import DataConfig
from pipeline.data import arithmetic, embedded, operations
from pipeline.errors import ConfigError, DataError
from pipeline.files import sha256
from pipeline.models.hub import CHECK_TIMEOUT_S, first_line, hub_info, import_modelscope, looks_like_path
from pipeline.templates import PromptTemplate
from pipeline.types import Message, Problem

logger = logging.getLogger(__name__)

Split = Literal["train", "eval"]
Row = dict[str, Any]
_FORMATS = {".parquet": "parquet", ".jsonl": "json"}
_EMBEDDED = {arithmetic.NAME: arithmetic.arithmetic_rows, operations.NAME: operations.operations_rows}


def load_problems(config: DataConfig, split: Split) -> list[Problem]:
    """The problems of a split, in the order of the data set.

    ``config.name`` is ``embedded:arithmetic`` or ``embedded:operations``; a directory of
    ``<split>.parquet|jsonl``; one such file, whose only split is called ``train`` (so ``train[:90%]`` and
    ``train[90%:]`` divide it); or the name of a hub data set. Rows without a question or a gold answer are left
    out and counted in a warning.

    Raises:
        DataError: there is no such data set, split or field, or no usable row.
        ConfigError: ``config.prompt_template`` lacks the question or gives the answer away.
    """
    return list(iter_problems(config, split))


def iter_problems(config: DataConfig, split: Split, scratch: Path | None = None) -> Iterator[Problem]:
    """What ``load_problems`` gives, one at a time.

    Args:
        scratch: as open_rows.

    Raises:
        DataError, ConfigError: as load_problems; that there is no usable row is known at the end.
    """
    num_problems = num_skipped = 0
    for _, problem in problem_rows(config, split, scratch):
        if problem:
            num_problems += 1
            yield problem
        else:
            num_skipped += 1
    if not num_problems:
        raise DataError(
            f"data {config.name} must have rows with a question and a gold answer, and has none of "
            f"{split_expression(config, split)}."
        )
    if num_skipped:
        logger.warning("%s, %s: left out %d of %d rows", config.name, split, num_skipped, num_problems + num_skipped)


def problem_rows(config: DataConfig, split: Split, scratch: Path | None = None) -> Iterator[tuple[Row, Problem | None]]:
    """Every row of a split with its problem; None for a row without a question or a gold answer.

    Args:
        scratch: as open_rows.

    Raises:
        DataError, ConfigError: as load_problems.
    """
    opened: Any
    if config.name.startswith("embedded:"):
        opened = nullcontext(embedded_rows(config, split))
        config = _with_own_fields(config)
    else:
        opened = open_rows(config, split_expression(config, split), scratch=scratch)
    ids: dict[str, int] = {}
    with opened as rows:
        template = prompt_template(config)
        for index, row in enumerate(rows):
            if template and index == 0:
                _check_template_fields(template, list(row), config)
            yield row, _problem(row, config, template, split, ids)


def split_expression(config: DataConfig, split: Split) -> str:
    return config.train_split if split == "train" else config.eval_split


def check_data(config: DataConfig) -> str:
    """One line on what ``load_problems`` would give. Downloads nothing.

    Local and embedded data is read and counted; of a hub data set only the existence is checked.

    Raises:
        DataError: the data set cannot be found or used.
        ConfigError: as load_problems.
    """
    prompt_template(_with_own_fields(config))
    if config.name.startswith("embedded:") or local_path(config.name):
        train, held_out = load_problems(config, "train"), load_problems(config, "eval")
        return f"{config.name}: {len(train)} training and {len(held_out)} held-out problems"
    for expression in (config.train_split, config.eval_split):
        _parse_split(config, expression)
    if config.hub == "modelscope":
        if not import_modelscope(DataError).HubApi().repo_exists(config.name, repo_type="dataset"):
            raise DataError(f"data {config.name} cannot be found on ModelScope. Check data.name and the network.")
        return f"{config.name} on ModelScope"
    info = hub_info("dataset", config.name, timeout_s=CHECK_TIMEOUT_S)
    if info is None:
        return f"{config.name}, in cache: {_cached_builder(config).cache_dir}"
    return f"{config.name} on the Hugging Face hub, revision {info.sha}"


def question_alone(question: str, config: DataConfig) -> Problem:
    """A question of no data set, asked as those of ``config`` are.

    Raises:
        ConfigError: as load_problems, or the template names another field than the question.
    """
    config = _with_own_fields(config)
    template, name = prompt_template(config), config.fields.question
    if template and (others := sorted(set(template.fields) - {name})):
        raise ConfigError(f"data.prompt_template must name {name} alone to ask a question, got {', '.join(others)}.")
    text = template.render({name: question}) if template else None
    return Problem(id="question", prompt=_messages(question, config), gold="", prompt_text=text)


def prompt_template(config: DataConfig) -> PromptTemplate | None:
    """None: the model's chat template. Raises ConfigError where it lacks the question or gives the answer away."""
    if config.prompt_template is None:
        return None
    fields = config.fields
    template = PromptTemplate.parse(config.prompt_template, fields.question)
    if fields.question not in template.fields:
        raise ConfigError(
            f"data.prompt_template must hold the question, {{{fields.question}}}, got fields "
            f"{', '.join(template.fields) or 'none'}. Change it or data.fields.question."
        )
    if told := [name for name in template.fields if name in (fields.answer, fields.solution, template.completion)]:
        raise ConfigError(
            f"data.prompt_template must not tell the answer, got {{{told[0]}}} inside it. What SFT trains on may be "
            "its very end, with nothing after it, not even a new line (in YAML: `|-`)."
        )
    return template


def _with_own_fields(config: DataConfig) -> DataConfig:
    """Of embedded data the fields are known."""
    if not config.name.startswith("embedded:"):
        return config
    return config.model_copy(update={"fields": embedded.FIELDS, "answer_format": "plain"})


def _check_template_fields(template: PromptTemplate, columns: list[str], config: DataConfig) -> None:
    named = [*template.fields, template.completion]
    if missing := [f"{{{name}}}" for name in named if name and name not in columns]:
        raise DataError(
            f"data {config.name} has no field for {', '.join(missing)} of data.prompt_template: it has "
            f"{', '.join(columns)}. Write the template with these."
        )


def worked_solution(reasoning: str, answer: str) -> str:
    """The form the policy should write, which the format reward looks for."""
    return f"<reasoning>\n{reasoning.strip()}\n</reasoning>\n<answer>\n{answer.strip()}\n</answer>"


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, ``\boxed x`` or ``\fbox{...}``; None without a closed one."""
    boxes = list(re.finditer(r"\\(?:boxed|fbox)(?![A-Za-z])\s*", text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    if not rest.startswith("{"):
        return re.split(r"[$\n]", rest)[0].strip()
    depth = 0
    for token in re.finditer(r"\\.|[{}]", rest, re.DOTALL):  # \{ and \} do not nest
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0 and token[0] == "}":
            return rest[1 : token.start()].strip()
    return None


def _problem(
    row: Row, config: DataConfig, template: PromptTemplate | None, split: Split, ids: dict[str, int]
) -> Problem | None:
    fields = config.fields
    question, (reasoning, gold) = as_text(row[fields.question]), read_answer(as_text(row[fields.answer]), config)
    if not question or not gold:
        return None
    if fields.solution:
        reasoning = as_text(row[fields.solution])
    solution = worked_solution(reasoning, gold) if reasoning else None
    prompt_text = None
    if template:
        prompt_text = template.render({name: as_text(row[name]) for name in template.fields})
        solution = as_text(row[template.completion or fields.solution or fields.answer]) or None
    digest = hashlib.sha256(question.encode()).hexdigest()[:12]
    return Problem(
        id=unique_name(as_text(row[fields.id]) if fields.id else f"{split}-{digest}", ids),
        prompt=_messages(question, config),
        gold=gold,
        solution=solution,
        level=as_text(row[fields.level]) or None if fields.level else None,
        type=as_text(row[fields.type]) or None if fields.type else None,
        source=config.name,
        prompt_text=prompt_text,
    )


def _messages(question: str, config: DataConfig) -> tuple[Message, ...]:
    system: tuple[Message, ...] = ({"role": "system", "content": config.system_prompt},) if config.system_prompt else ()
    return (*system, {"role": "user", "content": question})


def read_answer(text: str, config: DataConfig) -> tuple[str, str]:
    """The worked solution, empty when there is none, and the gold answer, empty when unusable."""
    if config.gold_format == "plain":
        return "", text
    if config.gold_format == "boxed":
        return text, last_boxed(text) or ""
    if config.gold_format == "phrase":
        reasoning, mark, gold = text.rpartition("The answer is:")
        return re.sub(r"####[^\n]*\s*$", "", reasoning).strip(), gold.strip() if mark else ""
    reasoning, mark, gold = text.rpartition("####")
    return re.sub(r"<<[^<>]*>>", "", reasoning).strip(), gold.strip() if mark else ""


def as_text(value: Any) -> str:
    """A field as the pipeline sees it: without outer white space, empty when it is missing."""
    return "" if value is None else str(value).strip()


def unique_name(name: str, taken: dict[str, int]) -> str:
    """The name, or name-2, name-3 and so on, whichever is not taken. It is from now on.

    Args:
        taken: names, each with the highest number that was tried for it.
    """
    candidate, copy = name, taken.get(name, 1)
    while candidate in taken:
        copy += 1
        candidate = f"{name}-{copy}"
    taken[name] = copy
    taken.setdefault(candidate, 1)
    return candidate


def embedded_rows(config: DataConfig, split: Split) -> list[Row]:
    """Rows with ``embedded.FIELDS``. Raises DataError for an embedded name or split that there is not."""
    check_embedded(config)
    return _EMBEDDED[config.name](config.arithmetic, split)


def check_embedded(config: DataConfig) -> None:
    """Raises DataError for an embedded name or split that there is not."""
    if config.name not in _EMBEDDED:
        raise DataError(f"data.name must be {' or '.join(_EMBEDDED)} for embedded data, got {config.name}.")
    if (config.train_split, config.eval_split) != ("train", "test"):
        raise DataError(
            f"data.train_split and data.eval_split must be train and test for {config.name}, got "
            f"{config.train_split} and {config.eval_split}. Its sizes are set in data.arithmetic."
        )


def read_rows(config: DataConfig, expression: str, *, fix: str = "Set data.fields.") -> list[Row]:
    """All rows of a split expression, each with every configured field.

    Args:
        fix: what the user is told to do about a field that is not there.

    Raises:
        DataError: there is no such data set, split or field.
    """
    with open_rows(config, expression, fix=fix) as rows:
        return list(rows)


@contextmanager
def open_rows(
    config: DataConfig, expression: str, *, fix: str = "Set data.fields.", scratch: Path | None = None
) -> Iterator[Any]:
    """The rows as ``read_rows`` gives them, as a data set of the datasets library that stays on disk.

    Args:
        scratch: a directory in which local files are laid out as Arrow while the block lasts. None: the system's
            own for temporary files.

    Raises:
        DataError: as read_rows.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".rows-", ignore_cleanup_errors=True) as folder:
        dataset = _open_dataset(config, expression, folder)
        missing = [name for name in config.fields.model_dump().values() if name and name not in dataset.column_names]
        if missing:
            has = ", ".join(dataset.column_names)
            raise DataError(f"data {config.name} has no field {', '.join(missing)}: it has {has}. {fix}")
        yield dataset


def source_digest(config: DataConfig, split: Split) -> str:
    """Changes when the rows of a split do: a hash of local files, or of embedded rows; of a hub data set its version.

    Raises:
        DataError: as load_problems.
    """
    expression = split_expression(config, split)
    if config.name.startswith("embedded:"):
        rows = json.dumps(embedded_rows(config, split), sort_keys=True)
        return hashlib.sha256(rows.encode()).hexdigest()
    if path := local_path(config.name):
        with _explained(config, expression):
            files = _split_files(path, _parse_split(config, expression))
            return " ".join(f"{name}={sha256(file)}" for name, file in files.items())
    with open_rows(config, expression) as dataset:
        return dataset._fingerprint


@contextmanager
def _explained(config: DataConfig, expression: str) -> Iterator[None]:
    import datasets

    try:
        yield
    except (ValueError, OSError, StopIteration, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(f"data {config.name}, split {expression}, cannot be read: {first_line(cause)}") from None


def _open_dataset(config: DataConfig, expression: str, folder: str) -> Any:
    import datasets

    path = local_path(config.name)
    instruction = _parse_split(config, expression)
    with _explained(config, expression):
        if path:
            return _open_local(path, instruction, folder)
        if config.hub == "modelscope":
            return _read_modelscope(config, expression)
        if hub_info("dataset", config.name) is None:
            _cached_builder(config)
        return datasets.load_dataset(config.name, config.subset, split=instruction)


def local_path(name: str) -> Path | None:
    """None when the name can only be that of a hub data set. Raises DataError for a path that is not there."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if looks_like_path(name) or path.suffix in _FORMATS:
        raise DataError(f"data file or directory {name} does not exist. Check the path.")
    return None


def _parse_split(config: DataConfig, expression: str) -> Any:
    """The datasets library's ReadInstruction. Raises DataError where the expression is none."""
    import datasets

    try:
        return datasets.ReadInstruction.from_spec(expression)
    except ValueError as error:
        raise DataError(
            f"data {config.name} has no split {expression!r}: {first_line(error).rstrip('. ')}. Write train, "
            "train[:1000], train[10%:20%], or a sum of such."
        ) from None


def _split_files(path: Path, instruction: Any) -> dict[str, Path]:
    """The files of a local data set that an expression names. Raises ValueError for a split that there is not."""
    files = (
        {"train": path} if path.is_file() else {file.stem: file for file in sorted(path.iterdir()) if file_format(file)}
    )
    lengths = dict.fromkeys(files, sys.maxsize)  # not known yet, and not asked for
    return {part.splitname: files[part.splitname] for part in instruction.to_absolute(lengths)}


def _open_local(path: Path, instruction: Any, folder: str) -> Any:
    import datasets

    files = _split_files(path, instruction)
    formats = {file_format(file) for file in files.values()}
    if len(formats) > 1 or None in formats:
        raise ValueError(f"files must all be .parquet or all .jsonl, got {', '.join(map(str, files.values()))}")
    data_files = {name: str(file) for name, file in files.items()}
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs comes back as an exception
    return datasets.load_dataset(str(formats.pop()), data_files=data_files, split=instruction, cache_dir=folder)


def file_format(file: Path) -> str | None:
    """What the datasets library calls it; None for a file that is no data."""
    return _FORMATS.get(file.suffix)


def _cached_builder(config: DataConfig) -> Any:
    """What the datasets library keeps of an earlier download. Raises DataError when that is nothing."""
    import datasets

    datasets.config.HF_HUB_OFFLINE = True  # else the library tries again for half a minute
    try:
        return datasets.load_dataset_builder(config.name, config.subset)
    except (ValueError, OSError, datasets.exceptions.DatasetsError):
        raise DataError(
            f"data {config.name} cannot be downloaded: the hub cannot be reached and it is not in the cache. "
            "Go online, set HF_ENDPOINT to a mirror, or name a local path or embedded:arithmetic."
        ) from None


def _read_modelscope(config: DataConfig, expression: str) -> Any:
    modelscope = import_modelscope(DataError)
    try:
        dataset = modelscope.MsDataset.load(config.name, subset_name=config.subset, split=expression)
    except Exception as error:  # the library has no common error class
        raise DataError(f"data {config.name} cannot be had from ModelScope: {first_line(error)}") from None
    return dataset.to_hf_dataset() if hasattr(dataset, "to_hf_dataset") else dataset
