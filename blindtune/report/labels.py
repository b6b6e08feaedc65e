"""Tables beside the predictions: what an expert says of the cases, and whom training has seen."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from blindtune.errors import InputError
from blindtune.tables import LABEL_COLUMNS, read_csv

from ._bootstrap import Integers
from .predictions import Person, Predictions


def read_expert(path: Path, predictions: Predictions) -> Integers:
    """An expert's class of each case (n,), from a CSV with columns case (or file) and label.

    Cases beyond those of the predictions are left out.

    Raises:
        InputError: not such a table, a label that no class has, two labels of one case, or a case of the
            predictions without one.
    """
    table = read_csv(path, "Write a line a case: case,label.")
    remedy = "The first line names the columns: case,label."
    case = table.required("case", ("case", *LABEL_COLUMNS["file"]), remedy)
    label = table.required("label", LABEL_COLUMNS["label"], remedy)
    index = {name: k for k, name in enumerate(predictions.classes)}
    wanted = set(predictions.cases)
    found: dict[str, int] = {}
    for line in table.lines:
        name = table.cell(line, case, "case")
        if name not in wanted:
            continue
        said = index.get(table.cell(line, label, "label"))
        if said is None:
            raise InputError(
                f"line {line.number} has a label that no class has",
                where=table.where,
                remedy=f"The classes are {', '.join(predictions.classes)}; spell labels so.",
            )
        if found.setdefault(name, said) != said:
            raise InputError(
                f"line {line.number} contradicts an earlier line for its case",
                where=table.where,
                remedy="Keep one label a case; hand in each expert's table by itself.",
            )
    if missing := len(wanted) - len(found):
        raise InputError(
            f"{missing} of {len(wanted)} cases have no label",
            where=table.where,
            remedy="Have the expert label all cases, or compare on the labelled cases only.",
        )
    return np.array([found[name] for name in predictions.cases], dtype=np.int64)


def read_people(path: Path) -> frozenset[Person]:
    """Patients that training or validation has seen, from a CSV with a column patient.

    With a column split, rows of the test split are left out; with a column site, patients are told
    apart by it. Tables of labels and of predictions are such tables.

    Raises:
        InputError: not such a table, or an empty cell.
    """
    table = read_csv(path, "Write a line a patient under the heading patient.")
    patient = table.required("patient", LABEL_COLUMNS["patient"], "Name the patients of training there.")
    site, split = table.position("site"), table.position(*LABEL_COLUMNS["split"])
    return frozenset(
        (None if site is None else table.cell(line, site, "site"), table.cell(line, patient, "patient"))
        for line in table.lines
        if split is None or not table.cell(line, split, "split").lower().startswith("test")
    )


def check_apart(test: Predictions, seen: Collection[Person], what: str = "training or validation") -> None:
    """Refuse a test set that shares a patient with those seen before.

    Patients are compared by site and name where both sides have sites, else by name alone.

    Args:
        test: the test cases.
        seen: patients of training, validation or calibration.
        what: what ``seen`` was used for, for the message.

    Raises:
        InputError: a patient stands on both sides; says how many.
    """
    by_site = test.sites is not None and all(site is not None for site, _ in seen)
    people, before = set(test.people), set(seen)
    if not by_site:
        people, before = {(None, name) for _, name in people}, {(None, name) for _, name in before}
    if shared := len(people & before):
        raise InputError(
            f"{shared} of {len(people)} test patient(s) were seen in {what}",
            where="test set",
            remedy="Leave them out of the test set: figures on patients seen before are too good.",
        )
