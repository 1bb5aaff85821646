import csv
import datetime
import decimal
import gc
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings, strategies as st

from rapidin.data import SUFFIXES, Row, read_rows
from rapidin.errors import DataFileError, RowError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fields_of(path: Path) -> list[dict]:
    return [row.fields for row in read_rows([path])]


def read_on(path: Path) -> tuple[list[int], list[RowError]]:
    """Numbers of the good rows, and the errors of the others."""
    errors: list[RowError] = []
    return [row.number for row in read_rows([path], errors.append)], errors


MESSY = [
    {"id": 1, "text": "2020-01-01", "when": "2020-01-01T10:00:00Z", "number": 1, "meta": {"x": 1}},
    {"id": "a", "text": "2021-01-01", "when": "2020-01-01 10:00:00", "number": 2.5, "meta": {"y": ["s"]}},
    {"id": 2, "text": "007", "number": 2**70, "meta": [1, "a", None], "late": "only here"},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL"])
def test_json_lines_keep_values_as_they_are(tmp_path, suffix):
    path = write(tmp_path / f"rows{suffix}", "".join(json.dumps(row) + "\n" for row in MESSY))
    rows = list(read_rows([path]))
    assert rows == [Row(str(path), number, fields) for number, fields in enumerate(MESSY, start=1)]
    assert [type(row.fields["number"]) for row in rows] == [int, float, int]


def test_json_array_keeps_values_as_they_are(tmp_path):
    path = write(tmp_path / "rows.json", json.dumps(MESSY, indent=2))
    assert list(read_rows([path])) == [Row(str(path), n, row) for n, row in enumerate(MESSY, start=1)]


def test_null_is_absent_and_nested_null_is_not(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"text": "a", "x": null, "y": {"z": null}}\n')
    assert fields_of(path) == [{"text": "a", "y": {"z": None}}]


def test_row_numbers_of_json_lines_are_line_numbers(tmp_path):
    path = write(tmp_path / "rows.jsonl", '\ufeff{"a": "x"}\r\n\r\n  \n{"a": "\u2028y"}')
    rows = list(read_rows([path]))
    assert [(row.number, row.fields) for row in rows] == [(1, {"a": "x"}), (4, {"a": "\u2028y"})]


def test_json_file_with_one_object_per_line_is_read(tmp_path):
    path = write(tmp_path / "rows.json", '{"a": 1}\n{"a": 2}\n')
    assert fields_of(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.csv.gz"])
def test_compressed_files(tmp_path, name):
    text = {"l": '{"a": "x"}', "j": '[{"a": "x"}]', "c": "a\nx\n"}
    key = "c" if "csv" in name else "l" if "jsonl" in name else "j"
    path = write(tmp_path / name, gzip.compress(text[key].encode()))
    assert fields_of(path) == [{"a": "x"}]


def test_cut_compressed_file_is_named(tmp_path):
    whole = gzip.compress(os.urandom(5000).hex().encode())
    path = write(tmp_path / "rows.jsonl.gz", whole[:3000])
    with pytest.raises(DataFileError, match=r"rows.jsonl.gz: cannot be read: "):
        list(read_rows([path]))
    path = write(tmp_path / "other.jsonl.gz", "{}")
    with pytest.raises(DataFileError, match=r"other.jsonl.gz: cannot be read: Not a gzipped file"):
        list(read_rows([path]))


def test_files_follow_each_other(tmp_path):
    first = write(tmp_path / "a.jsonl", '{"a": 1}')
    second = write(tmp_path / "b.csv", "a\n2\n")
    rows = [(row.file, row.number, row.untyped) for row in read_rows([first, second])]
    assert rows == [(str(first), 1, False), (str(second), 1, True)]


def test_every_file_is_looked_at_before_the_first_row(tmp_path):
    first = write(tmp_path / "a.jsonl", '{"a": 1}')
    with pytest.raises(DataFileError, match="no such file"):
        read_rows([first, tmp_path / "missing.jsonl"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_and_empty(tmp_path, suffix):
    with pytest.raises(DataFileError, match=rf"rows{re.escape(suffix)}: no such file"):
        read_rows([tmp_path / f"rows{suffix}"])
    with pytest.raises(DataFileError, match=rf"rows{re.escape(suffix)}: is empty"):
        read_rows([write(tmp_path / f"rows{suffix}", "")])


def test_directory_and_unknown_suffix(tmp_path):
    with pytest.raises(DataFileError, match="is a directory"):
        read_rows([tmp_path])
    with pytest.raises(DataFileError, match=r"rows.txt: unknown kind of file; known are \.jsonl, .*\.parquet"):
        read_rows([write(tmp_path / "rows.txt", "a")])


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.json", " \n"), ("a.csv", "a\n")]
)
def test_no_rows(tmp_path, name, content):
    with pytest.raises(DataFileError, match=f"{name}: holds no rows"):
        list(read_rows([write(tmp_path / name, content)]))


BAD_LINES = {
    '{"text":': "broken JSON at line 7, column 9: Expecting value",
    '{"a": 1} {"b": 2}': "broken JSON at line 7, column 10: Extra data",
    "[1, 2]": "is not a JSON object {…} but [1, 2]",
    '"text"': 'is not a JSON object {…} but "text"',
    '{"a": NaN}': "holds the number NaN, which JSON does not have; write null",
    '{"a": [-Infinity]}': "holds the number -Infinity, which JSON does not have; write null",
    '{"a": 1e999}': "holds the number 1e999, which JSON does not have; write null",
    '{"a": "\x00"}': "broken JSON at line 7, column 8: Invalid control character at",
    '{"a": ' + "[" * 100_000: "broken JSON at line 7, column 1: nested too deeply",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_bad_line_is_named_and_costs_only_itself(tmp_path, line, reason):
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\n' * 6 + line + "\n" + '{"a": 1}\n' * 2)
    with pytest.raises(RowError) as caught:
        list(read_rows([path]))
    assert str(caught.value) == f"{path}, row 7: {reason}"
    good, errors = read_on(path)
    assert good == [1, 2, 3, 4, 5, 6, 8, 9]
    assert [(error.row, error.reason, error.file) for error in errors] == [(7, reason, str(path))]


def test_long_integer_and_bad_utf8_cost_one_line(tmp_path):
    lines = [b'{"a": 1}', b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\xff"}', b'{"a": 1}']
    good, errors = read_on(write(tmp_path / "rows.jsonl", b"\n".join(lines)))
    assert good == [1, 4]
    assert errors[0].reason.startswith("broken JSON at line 2: Exceeds the limit")
    assert errors[1].reason == "line 3 is not valid UTF-8 (byte 0xff); save the file as UTF-8"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"a": 1},\n{"a":}]', "broken JSON at line 2, column 6: Expecting value"),
        ('[{"a": 1}\n{"a": 2}]', "broken JSON at line 2, column 1: Expecting ',' delimiter"),
        ('[{"a": 1}', "broken JSON at line 1, column 10: Expecting ',' delimiter"),
        ('[{"a": 1}] x', "broken JSON at line 1, column 12: Extra data"),
        ('[{"a": 1},]', "broken JSON at line 1, column 11: Expecting value"),
        ('{\n"data": [{"a": 1}]}', "is not an array of objects"),
        ("17", "is not an array of objects"),
        ('{"a": ', "broken JSON at line 1, column 7: Expecting value"),
        (b'[{"a": 1},\n"\xe9"]', "line 2 is not valid UTF-8 (byte 0xe9); save the file as UTF-8"),
    ],
)
def test_broken_json_file(tmp_path, content, reason):
    path = write(tmp_path / "rows.json", content)
    with pytest.raises(DataFileError, match=re.escape(f"{path}: {reason}")):
        list(read_rows([path]))


def test_bad_elements_of_an_array_cost_only_themselves(tmp_path):
    path = write(tmp_path / "rows.json", '[{"a": 1}, 2, {"a": NaN}, {"a": 3}]')
    good, errors = read_on(path)
    assert good == [1, 4]
    assert [error.row for error in errors] == [2, 3]
    with pytest.raises(RowError, match="row 2: is not a JSON object"):
        list(read_rows([path]))


def test_csv_is_text(tmp_path):
    content = '\ufeffid,text,n,empty\r\n007,2020-01-01,1.50,\r\n\r\n8,"NA, ""q""\nline",true,\r\n'
    path = write(tmp_path / "rows.csv", content)
    assert list(read_rows([path])) == [
        Row(str(path), 1, {"id": "007", "text": "2020-01-01", "n": "1.50"}, untyped=True),
        Row(str(path), 2, {"id": "8", "text": 'NA, "q"\nline', "n": "true"}, untyped=True),
    ]


def test_csv_cell_larger_than_the_default_limit(tmp_path):
    path = write(tmp_path / "rows.csv", "text\n" + "x" * 300_000 + "\n")
    assert len(fields_of(path)[0]["text"]) == 300_000


def test_bad_csv_rows_cost_only_themselves(tmp_path):
    content = b'id,text\n1,a\n2,b,c\n3\n4,"x"y\n5,\xff\n6,"two\nlines"\n7,"open\n8,z\n'
    path = write(tmp_path / "rows.csv", content)
    good, errors = read_on(path)
    assert good == [1, 6]
    assert [(error.row, error.reason) for error in errors] == [
        (2, "line 3 has 3 cells, the header 2; quote cells that hold a comma"),
        (3, "line 4 has 1 cells, the header 2; quote cells that hold a comma"),
        (4, "broken CSV at line 5: ',' expected after '\"'"),
        (5, "line 6 is not valid UTF-8; save the file as UTF-8"),
        (7, "broken CSV at line 9: unexpected end of data"),
    ]
    with pytest.raises(RowError, match=r"rows.csv, row 2: line 3 has 3 cells"):
        list(read_rows([path]))


@pytest.mark.parametrize("header", ["a,a", "a,", '"a"b,c', b"\xff,a"])
def test_bad_csv_header(tmp_path, header):
    content = (header.encode() if isinstance(header, str) else header) + b"\n1,2\n"
    with pytest.raises(DataFileError, match=r"rows.csv: .*(header|line 1)"):
        list(read_rows([write(tmp_path / "rows.csv", content)]))


def parquet(path: Path, columns: dict) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=700)
    return path


def test_parquet(tmp_path):
    moment = datetime.datetime(2020, 1, 1)
    path = parquet(
        tmp_path / "odd [1] *name?.parquet",
        {
            "id": [1, 2],
            "text": ["2020-01-01", None],
            "when": [moment, moment],
            "messages": [[{"role": "user", "content": "a"}], None],
        },
    )
    assert list(read_rows([path])) == [
        Row(
            str(path),
            1,
            {"id": 1, "text": "2020-01-01", "when": moment, "messages": [{"role": "user", "content": "a"}]},
        ),
        Row(str(path), 2, {"id": 2, "when": moment}),
    ]


def test_parquet_of_several_batches(tmp_path):
    path = parquet(tmp_path / "rows.parquet", {"n": list(range(2000))})
    assert [(row.number, row.fields["n"]) for row in read_rows([path])] == [(n + 1, n) for n in range(2000)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which files are open")
@pytest.mark.parametrize("wanted", [1, 1000, None])
def test_parquet_leaves_nothing_open(tmp_path, wanted):
    """At the end, and where reading is given up, at once: not when garbage is looked for."""
    path = parquet(tmp_path / "rows.parquet", {"n": list(range(2000))})

    def times_open() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(os.path.realpath(link) == os.path.realpath(path) for link in links)

    rows = read_rows([path])
    next(rows)
    assert times_open() == 1
    gc.collect()
    gc.disable()
    try:
        assert len(list(itertools.islice(rows, wanted))) in (wanted, 1999)
        rows.close()
        assert times_open() == 0
    finally:
        gc.enable()


def test_parquet_values_of_many_types(tmp_path):
    """Numbers stay exact, bytes stay bytes, and nothing needs pandas, even times in nanoseconds."""
    nanoseconds = pyarrow.timestamp("ns")
    columns = {
        "amount": pyarrow.array([decimal.Decimal("1.20")]),
        "day": pyarrow.array([datetime.date(2020, 1, 1)]),
        "raw": pyarrow.array([b"\xff"]),
        "large": pyarrow.array([2**64 - 1], pyarrow.uint64()),
        "word": pyarrow.array(["x"]).dictionary_encode(),
        "at": pyarrow.array([1577840523123456789], nanoseconds),
        "turns": pyarrow.array(
            [[{"at": 1577840523123456000, "who": None}]],
            pyarrow.list_(pyarrow.struct([("at", nanoseconds), ("who", pyarrow.string())])),
        ),
        "nothing": pyarrow.nulls(1),
    }
    moment = datetime.datetime(2020, 1, 1, 1, 2, 3, 123456)
    (row,) = read_rows([parquet(tmp_path / "rows.parquet", columns)])
    assert row.fields == {
        "amount": decimal.Decimal("1.20"),
        "day": datetime.date(2020, 1, 1),
        "raw": b"\xff",
        "large": 2**64 - 1,
        "word": "x",
        "at": moment,
        "turns": [{"at": moment, "who": None}],
    }
    assert type(row.fields["at"]) is datetime.datetime


def test_broken_parquet(tmp_path):
    whole = parquet(tmp_path / "a.parquet", {"text": [f"row {n} " * 5 for n in range(3000)]}).read_bytes()
    altered = whole[:6000] + bytes(byte ^ 0xFF for byte in whole[6000:6400]) + whole[6400:]
    for name, content in {"cut": whole[:-50], "noise": b"PAR1" * 9, "altered": altered}.items():
        path = write(tmp_path / f"{name}.parquet", content)
        with pytest.raises(DataFileError, match=rf"{name}\.parquet: cannot be read") as caught:
            list(read_rows([path]))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataFileError, match="holds no rows"):
        list(read_rows([parquet(tmp_path / "none.parquet", {"a": pyarrow.array([], pyarrow.string())})]))


def test_parquet_needs_neither_network_nor_cache(tmp_path):
    """In a process of its own, with the hub not switched off, as users have it."""
    path = parquet(tmp_path / "rows.parquet", {"a": ["x"]})
    program = (
        "import os, socket, sys\n"
        "def refuse(*arguments, **options):\n"
        "    print('network', arguments)\n"
        "    raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from rapidin.data import read_rows\n"
        "import rapidin.text\n"
        "heavy = {'pyarrow', 'torch', 'transformers', 'pandas', 'jinja2', 'sqlalchemy'}\n"
        "assert not heavy & set(sys.modules)\n"
        "print([row.fields for row in read_rows([Path(sys.argv[1])])], flush=True)\n"
        # Without what Python does at its end: on a busy machine threads of pyarrow have aborted it there, once.
        "os._exit(0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment["HF_HOME"] = str(tmp_path / "hub")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[{'a': 'x'}]\n", "", 0)
    assert not (tmp_path / "hub").exists()


def test_unreadable_file(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.jsonl", "{}")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataFileError, match=r"rows.jsonl: cannot be read: .*Permission denied"):
        read_rows([path])


def test_error_of_the_callback_is_not_taken_for_the_files(tmp_path):
    path = write(tmp_path / "rows.jsonl", "x\n")

    def complain(error: RowError) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(read_rows([path], complain))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: value is not None)
json_rows = st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(rows=json_rows, escaped=st.booleans())
def test_json_values_survive(tmp_path_factory, rows, escaped):
    folder = tmp_path_factory.mktemp("rows")
    lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    assert fields_of(write(folder / "rows.jsonl", "\n".join(lines))) == rows
    assert fields_of(write(folder / "rows.json", "[" + ",\n".join(lines) + "]")) == rows


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=4))
def test_csv_cells_survive(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    assert fields_of(path) == [{"a": first, "b": second} for first, second in rows]
