"""CSV tables: what is read, and what is refused."""

from __future__ import annotations

import pytest

from blindtune.errors import InputError
from blindtune.tables import MAX_TABLE_BYTES, read_csv


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(encoding))
        return read_csv(path, "Write rows.")

    return write


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_blanks_and_blank_lines(table, delimiter):
    found = table("\ufeff Case ,Site Name\r\n a ,x\r\n\r\n,\r\nb,\r\n".replace(",", delimiter))
    assert found.header == ("Case", "Site Name")
    assert [(line.number, line.cells) for line in found.lines] == [(2, ("a", "x")), (5, ("b", ""))]
    assert found.position("file", "case") == 0
    assert found.position("site_name") == 1
    assert found.position("site") is None
    assert found.cell(found.lines[0], 1, "site") == "x"
    with pytest.raises(InputError, match="line 5 has no site"):
        found.cell(found.lines[1], 1, "site")


def test_a_short_line_lacks_the_cell(table):
    found = table("a,b\n1\n")
    with pytest.raises(InputError, match="line 2 has no b"):
        found.cell(found.lines[0], 1, "b")


def test_the_first_name_wins(table):
    assert table("image,file\n1,2\n").position("file", "image") == 1


def test_quotes_hold_delimiters(table):
    assert table('a,b\n"1,2",3\n').lines[0].cells == ("1,2", "3")


def test_what_is_no_table_is_refused(table, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no rows.*Write rows"):
        table("a,b\n")
    with pytest.raises(InputError, match=r"no column 'x' \(has: a, b\). Add x"):
        table("a,b\n1,2\n").required("x", ("x",), "Add x.")
    with pytest.raises(InputError, match=r"no column 'x' \(has: nothing\)"):
        table("").required("x", ("x",), "Add x.")
    with pytest.raises(InputError, match="not UTF-8"):
        table("a\né\n", "latin-1")
    with pytest.raises(InputError, match="not a CSV"):
        table('a\n"1\n')
    with pytest.raises(InputError, match="cannot be read"):
        read_csv(tmp_path / "none.csv", "")
    assert MAX_TABLE_BYTES > 1 << 20
    monkeypatch.setattr("blindtune.tables.MAX_TABLE_BYTES", 3)
    with pytest.raises(InputError, match="larger than"):
        table("a,b\n1,2\n")
