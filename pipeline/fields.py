"""Fields of rows as texts, the same for training, evaluation, splits and grading: a number keeps the digits it has in
the file."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

ABSENT = object()
"""The value of a field that a row does not have."""
_MAX_EXPONENT = 1000
"""Numbers beyond 10 to this power stay in exponent form: written out, ``1e999999999`` would fill the memory."""
_MAX_EXACT = 2**53
"""Up to here a whole number has all its digits in any float. Beyond, and in fractions, only the shortest digits that
mean the same float are known to be meant: 1e23 is not 99999999999999991611392."""
_BOM = "\ufeff"


def lookup(row: Mapping[str, Any], name: str) -> Any:
    """A field of a row, or ``ABSENT``. ``a.b`` is the column of that name, or else field ``b`` of column ``a``."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    value = row.get(outer, ABSENT) if dot else ABSENT
    if isinstance(value, dict):
        return lookup(value, inner)
    return None if value is None else ABSENT


def as_text(value: Any, name: str, place: object) -> str:
    """A field as text without outer white space; empty if it is missing: absent, null, NaN or an empty list.

    Whole numbers have no decimal point, dates at midnight have no time, bytes are UTF-8, and a list of one is its item.

    Args:
        name, place: the field and its row, for the error message.

    Raises:
        DataError: a list of several, a struct, or bytes that are not UTF-8.
    """
    if isinstance(value, str):
        return value.strip()
    if value is None or value is ABSENT or value != value:
        return ""
    if isinstance(value, float | Decimal):
        return _number_text(value)
    if isinstance(value, datetime):
        return str(value.date() if value.tzinfo is None and value.time() == time() else value)
    if isinstance(value, int | date | time):
        return str(value)
    if isinstance(value, bytes):
        return _decoded(value, name, place).strip()
    if isinstance(value, list) and len(value) < 2:
        return as_text(value[0], name, place) if value else ""
    raise DataError(f"{place}: field {name} must be one text or number, got {_described(value, name)}.")


def _number_text(value: float | Decimal) -> str:
    if isinstance(value, float):
        if math.isinf(value):
            return str(value)
        value = Decimal(repr(value))
    if not value:
        return "0"  # also of -0 and 0.00
    text = str(value)
    if "E" in text and abs(value.adjusted()) <= _MAX_EXPONENT:
        text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text and "E" not in text else text


def _decoded(value: bytes, name: str, place: object) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: field {name} must be UTF-8, got byte 0x{value[error.start]:02x}.") from None


def _described(value: Any, name: str) -> str:
    if isinstance(value, dict):
        return f"a struct. Name one of its fields: {', '.join(f'{name}.{inner}' for inner in value) or 'it has none'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return type(value).__name__


def parse_line(line: bytes, place: object) -> dict[str, Any]:
    """The object on a line of JSONL. Numbers become Decimals, which keep every digit.

    Raises:
        DataError: not UTF-8, not a JSON object, or a key occurs twice.
    """
    try:
        row = _DECODER.decode(line.decode().removeprefix(_BOM))
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
        raise DataError(f"{place} must be UTF-8, got {byte}. Convert the file to UTF-8.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{place} must be a JSON object: {error.msg} at column {error.colno}.") from None
    except ArithmeticError:
        raise DataError(f"{place} must hold numbers that fit into memory, got an exponent that does not.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} must be a JSON object: {first_line(error)}.") from None
    if not isinstance(row, dict):
        raise DataError(f"{place} must be a JSON object, got {_kind(row)}. Write one object per line.")
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return row


_DECODER = json.JSONDecoder(parse_int=Decimal, parse_float=Decimal, object_pairs_hook=_object)


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {list: "a list", str: "a string", Decimal: "a number"}
    return kinds.get(type(value)) or json.dumps(value)


def columns_of(names: Sequence[str] | None, columns: Sequence[str]) -> list[str]:
    """The columns that hold these fields, at least one; all for None."""
    if names is None:
        return list(columns)
    outer = {name if name in columns else name.partition(".")[0] for name in names}
    return [column for column in columns if column in outer] or list(columns[:1])


def table_columns(
    data: "pa.RecordBatch | pa.Table", names: Sequence[str], features: Mapping[str, Any], place: object
) -> list[list[Any]]:
    """The values of Arrow columns: class labels by name, float32 as the shortest number that rounds to it, whole
    numbers up to 2^53 as they are.

    Args:
        features: of the datasets library, by column; may be empty.
        place: the rows, for the error message.

    Raises:
        DataError: a text is not UTF-8, a date or a duration is beyond Python's, or a name stands for several columns.
    """
    columns = []
    for name in names:
        if data.schema.names.count(name) > 1:
            raise DataError(f"{place}: field {name} must be one column, got {data.schema.names.count(name)}.")
        column = data.column(name)
        try:
            values = column.to_pylist()
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: field {name} must be UTF-8: {error.reason}.") from None
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"{place}: field {name} must hold dates of the years 1 to 9999, and durations of at most a billion "
                f"days, got another {column.type}: {first_line(error).rstrip('.')}."
            ) from None
        restore = _restorer(column.type, features.get(name))
        columns.append([restore(value) for value in values] if restore else values)
    return columns


def stored_features(schema: "pa.Schema", place: object) -> Mapping[str, Any]:
    """The features that the datasets library wrote into a file's schema; empty if another program wrote the file.

    Raises:
        DataError: they are not JSON objects.
    """
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        for name in ("info", "features"):
            found = found.get(name) or {}
        return dict(found.items())
    except (ValueError, RecursionError, AttributeError):
        raise DataError(
            f"{place}: the metadata 'huggingface' must be a JSON object with info.features, got something else. Write "
            "the file again, without it."
        ) from None


def _restorer(type: "pa.DataType", feature: Any) -> Callable[[Any], Any] | None:
    """A function from a value of ``to_pylist`` to the value that is meant; None if they are the same."""
    import numpy as np
    import pyarrow as pa

    feature = feature if isinstance(feature, dict) else {}
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return lambda value: _label(value, feature["names"])
    if pa.types.is_float32(type) or pa.types.is_float16(type):
        kind = np.float32 if pa.types.is_float32(type) else np.float16
        return lambda value: value if value is None or _is_exact(value) else float(str(kind(value)))
    if pa.types.is_dictionary(type):
        return _restorer(type.value_type, feature)
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        item = _restorer(type.value_type, feature.get("feature"))
        return item and (lambda values: values and [item(value) for value in values])
    if pa.types.is_struct(type):
        return _struct_restorer({field.name: _restorer(field.type, feature.get(field.name)) for field in type})
    return None


def _is_exact(value: float) -> bool:
    return value.is_integer() and abs(value) <= _MAX_EXACT


def _struct_restorer(fields: Mapping[str, Callable[[Any], Any] | None]) -> Callable[[Any], Any] | None:
    changed = {name: restore for name, restore in fields.items() if restore}
    if not changed:
        return None
    return lambda row: row and {**row, **{name: restore(row[name]) for name, restore in changed.items()}}


def _label(value: int | None, names: Sequence[str]) -> str | None:
    """A label's name. The datasets library writes -1 for a missing label."""
    return names[value] if value is not None and 0 <= value < len(names) else None
