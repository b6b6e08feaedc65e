"""Experts' tables and patients seen before."""

from __future__ import annotations

import pytest

from blindtune.errors import InputError
from blindtune.report import check_apart, read_expert, read_people


@pytest.fixture
def write(tmp_path):
    def table(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return table


@pytest.mark.parametrize("heading", ["case,label", "file,diagnosis", "Image,Finding"])
def test_expert_in_any_order_with_more_cases(predictions, write, heading):
    one = predictions(n=4)
    said = {case: "ill" if i % 3 else "well" for i, case in enumerate(one.cases)}
    lines = [f"{case},{label}" for case, label in reversed(said.items())]
    path = write("\n".join([heading, "another.png,unknown", *lines, lines[0]]))
    assert read_expert(path, one).tolist() == [one.classes.index(said[case]) for case in one.cases]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[:-1], "1 of 4 cases have no label"),
        (lambda lines: [*lines, lines[0].replace("well", "ill")], "line 6 contradicts"),
        (
            lambda lines: [lines[0].replace("well", "sick"), *lines[1:]],
            "line 2 has a label that no class has",
        ),
        (lambda lines: [lines[0].replace("well", ""), *lines[1:]], "line 2 has no label"),
        (lambda lines: [], "no rows"),
    ],
)
def test_unfit_experts_are_refused(predictions, write, change, reason):
    one = predictions(n=4)
    lines = change([f"{case},well" for case in one.cases])
    with pytest.raises(InputError, match=reason) as caught:
        read_expert(write("\n".join(["case,label", *lines]) + "\n"), one)
    assert "png" not in str(caught.value)


def test_people_of_tables(predictions, write):
    assert read_people(write("patient\n1\n2\n1\n")) == {(None, "1"), (None, "2")}
    assert read_people(write("patient_id,site\n1,x\n1,y\n")) == {("x", "1"), ("y", "1")}
    labels = "file,label,patient,split\na,b,1,train\nc,d,2,test\ne,f,3,val\ng,h,4,Testing\n"
    assert read_people(write(labels)) == {(None, "1"), (None, "3")}
    one = predictions(sites=("x", "y"))
    assert read_people(write(one.to_csv())) == set(one.people)
    with pytest.raises(InputError, match="no column 'patient'"):
        read_people(write("name\n1\n"))


def test_shared_patients_are_counted_and_not_named(predictions):
    one = predictions(n=20)
    check_apart(one, {(None, "other")})
    check_apart(one, ())
    with pytest.raises(
        InputError, match=r"2 of 10 test patient\(s\) were seen in training or validation"
    ) as caught:
        check_apart(one, {(None, "P3"), (None, "P4"), (None, "Q")})
    assert "P3" not in str(caught.value)


def test_sites_tell_patients_apart_where_both_sides_have_them(predictions):
    one = predictions(n=20, sites=("x", "y"))
    check_apart(one, {("y", "P0"), ("z", "P1")})
    for seen in ({("x", "P0")}, {(None, "P0")}, {("y", "P0"), (None, "Q")}):
        with pytest.raises(InputError, match="1 of 10"):
            check_apart(one, seen)
