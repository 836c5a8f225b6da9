# SPDX-License-Identifier: Apache-2.0
"""connections.parquet and counters.parquet: written sample by sample, joined into one file each.

A parquet file cannot grow and stay whole. While a run lasts, every sample has a file of its own
below raw/; at the end they become row groups of one file and go. A run that was killed is read
from both.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench import strict_json
from bench.errors import BenchError
from bench.files import make_dirs, replace_atomic, unwritable, write_atomic

if TYPE_CHECKING:
    import pandas as pd

CONNECTIONS_FILE = "connections.parquet"
COUNTERS_FILE = "counters.parquet"
CONNECTIONS_FOLDER = Path("raw", "connections")
COUNTERS_FOLDER = Path("raw", "counters")

_WORD = pa.dictionary(pa.int32(), pa.string())
CONNECTIONS = pa.schema(
    [
        ("sample", _WORD),
        ("start_s", pa.float64()),
        ("connect_us", pa.float64()),
        ("response_us", pa.float64()),
        ("end", _WORD),
        ("failed_us", pa.float64()),
        ("port", pa.uint16()),
        ("bytes", pa.int64()),
    ]
)
"""start_s: since the sample's first SYN. connect_us: SYN sent to established, null when it never
was. response_us: SYN sent to the server's FIN or the client's close, whichever came first, null
when never established. end: `server` or `client`, who ended it, or `failed`. failed_us: how long a
failed attempt lasted. port: the client's, 0 where it got none. bytes: of payload, where known."""

_KEYS = ("sample", "host", "role")
# Ten times what the longest run can have.
MOST_ROWS = 100_000_000
_MOST_VALUES = 1_000_000_000
_COMPRESSION = "zstd"
_DAMAGED = "the run is damaged; measure again, or restore the file"
_COLUMNS = "its columns are not those of this schema"


def add_connections(run: Path, sample: str, columns: Mapping[str, Any]) -> None:
    """Keep a sample's connections.

    columns: arrays of one length by the names of CONNECTIONS, but `sample`. Raises BenchError when
    the file system objects.
    """
    rows = len(next(iter(columns.values())))
    arrays = [
        pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([sample]))
        if field.name == "sample"
        else pa.array(columns[field.name], from_pandas=True).cast(field.type)
        for field in CONNECTIONS
    ]
    table = pa.Table.from_arrays(arrays, schema=CONNECTIONS)
    folder = run / CONNECTIONS_FOLDER
    make_dirs(folder)
    _write(folder / f"{sample}.parquet", [table], CONNECTIONS)


def add_counters(run: Path, sample: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep a sample's counters: a row a host, with `host`, `role` and a number a counter."""
    folder = run / COUNTERS_FOLDER
    make_dirs(folder)
    text = json.dumps([{**row, "sample": sample} for row in rows], allow_nan=False)
    write_atomic(folder / f"{sample}.json", text)


def join(run: Path) -> None:
    """Make one file of the parts of each kind, and remove them. Raises BenchError."""
    parts = sorted((run / CONNECTIONS_FOLDER).glob("*.parquet"))
    if parts:
        done = run / CONNECTIONS_FILE
        fresh = {part.stem for part in parts}
        earlier = [_without(_read_times(done), fresh)] if done.exists() else []
        _write(done, _chain(earlier, parts), CONNECTIONS)
    counted = sorted((run / COUNTERS_FOLDER).glob("*.json"))
    if counted:
        table = pa.Table.from_pandas(read_counters(run), preserve_index=False)
        _write(run / COUNTERS_FILE, [table], table.schema)
    for part in (*parts, *counted):
        with contextlib.suppress(OSError):
            part.unlink()
    for folder in (CONNECTIONS_FOLDER, COUNTERS_FOLDER):
        with contextlib.suppress(OSError):
            (run / folder).rmdir()


def has_connections(run: Path) -> bool:
    """Whether the run has times of single connections."""
    return (run / CONNECTIONS_FILE).exists() or any((run / CONNECTIONS_FOLDER).glob("*.parquet"))


def read_connections(run: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a run's connections, all columns or some, `sample` being one. Raises BenchError."""
    wanted = list(columns or CONNECTIONS.names)
    parts = {part.stem: part for part in sorted((run / CONNECTIONS_FOLDER).glob("*.parquet"))}
    tables = [_read_times(part, wanted) for part in parts.values()]
    if (run / CONNECTIONS_FILE).exists():
        tables.insert(0, _without(_read_times(run / CONNECTIONS_FILE, wanted), set(parts)))
    if not tables:
        return CONNECTIONS.empty_table().select(wanted)
    # One dictionary of samples for all parts.
    return pa.concat_tables(tables).unify_dictionaries()


def read_counters(run: Path) -> pd.DataFrame:
    """Return a run's counters: sample, host, role, and a float64 column a counter.

    Empty, with these three columns, for a run without. Raises BenchError.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for part in sorted((run / COUNTERS_FOLDER).glob("*.json")):
        rows += _read_rows(part)
    frames = [pd.DataFrame(rows)] if rows else []
    done = run / COUNTERS_FILE
    if done.exists():
        earlier = _read_table(done)
        if missing := [key for key in _KEYS if key not in earlier.column_names]:
            raise damaged(done, f"it has no column {missing[0]}")
        try:
            frame = earlier.to_pandas()
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise damaged(done, error) from error
        frames.insert(0, frame[~frame["sample"].isin({row["sample"] for row in rows})])
    if not frames:
        return pd.DataFrame(columns=list(_KEYS))
    joined = pd.concat(frames, ignore_index=True)
    numbers = [name for name in joined.columns if name not in _KEYS]
    try:
        words, counted = joined[list(_KEYS)].astype("str"), joined[numbers].astype("float64")
    except (ValueError, TypeError) as error:
        raise damaged(done, error) from error
    return pd.concat([words, counted], axis=1)


def _chain(tables: Sequence[pa.Table], parts: Sequence[Path]) -> Iterator[pa.Table]:
    yield from tables
    for part in parts:
        yield _read_times(part)


def _without(table: pa.Table, samples: set[str]) -> pa.Table:
    """Return a table without the rows of some samples: a part is newer than the joined file."""
    import pyarrow.compute as pc

    if not samples:
        return table
    known = pa.array(sorted(samples))
    return table.filter(pc.invert(pc.is_in(table["sample"].cast(pa.string()), value_set=known)))


def _read_times(file: Path, columns: Sequence[str] = CONNECTIONS.names) -> pa.Table:
    """Return columns of a file of connections. Raises BenchError unless CONNECTIONS has them so."""
    words = [name for name in columns if CONNECTIONS.field(name).type == _WORD]
    table = _read_table(file, columns, words)
    wanted = pa.schema([CONNECTIONS.field(name) for name in columns])
    if sorted(table.column_names) != sorted(columns):
        raise damaged(file, _COLUMNS)
    try:
        table = pa.Table.from_arrays(
            [_as(table[each.name], each) for each in wanted], schema=wanted
        )
    except pa.ArrowException as error:
        raise damaged(file, error) from error
    if table["sample"].null_count:
        raise damaged(file, "a connection is of no sample")
    return table


def _as(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a column as the schema has it: others write words and whole numbers otherwise."""
    if column.type == field.type:
        return column
    kind = column.type
    if field.type == _WORD and (pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
        return column.cast(pa.string()).dictionary_encode().cast(_WORD)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    # Where all of a column is missing, nothing says what it would have been.
    if field.type != _WORD and (is_number or pa.types.is_null(kind)):
        return column.cast(field.type)
    raise pa.ArrowTypeError(f"{field.name} is of type {kind}")


def _read_rows(part: Path) -> list[dict[str, Any]]:
    try:
        text = part.read_text(encoding="utf-8") if part.is_file() else ""
        rows = strict_json.loads(text)
        # A ValueError for what JSON can escape and is no text: half of a pair.
        json.dumps(rows, ensure_ascii=False).encode()
    except (OSError, ValueError) as error:
        raise damaged(part, error) from error
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise damaged(part, "it is not lines of counters")
    return rows


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(
        isinstance(value, str if key in _KEYS else int | float)
        for key, value in {**dict.fromkeys(_KEYS), **row}.items()
    )


def _read_table(
    file: Path, columns: Sequence[str] | None = None, words: Sequence[str] = ()
) -> pa.Table:
    if not file.is_file():
        raise damaged(file, "it is not a file")
    try:
        parquet = pq.ParquetFile(file, read_dictionary=list(words))
        # What is the same in every row takes no room in the file, and all of memory.
        rows, width = parquet.metadata.num_rows, parquet.metadata.num_columns
        if rows > MOST_ROWS or rows * width > _MOST_VALUES:
            raise damaged(file, f"it has {rows} rows of {width} columns")
        table = parquet.read(None if columns is None else list(columns))
        # A ValueError for words, and for names, that are no text.
        table.validate(full=True)
        list(table.column_names)
        # Nobody tells pandas here what to make of it.
        return table.replace_schema_metadata()
    except KeyError as error:
        raise damaged(file, _COLUMNS) from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(file, error) from error


def damaged(file: Path, reason: object) -> BenchError:
    """Return the error that says why a file of a run cannot be read."""
    said = " ".join(str(reason).split())[:200]
    return BenchError(f"{file} is damaged: {said}", remedy=_DAMAGED)


def _write(file: Path, tables: Sequence[pa.Table] | Iterator[pa.Table], schema: pa.Schema) -> None:
    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression=_COMPRESSION) as writer:
            for table in tables:
                writer.write_table(table)

    try:
        replace_atomic(file, write)
    except pa.ArrowException as error:
        raise unwritable(file, OSError(str(error))) from error
