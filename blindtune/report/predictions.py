"""Predictions of one model on labelled cases, and the CSV that carries them between programs.

The first line names the columns: ``case`` (or ``file``), ``patient``, optionally ``site``, ``label``, and
one column a class with its probability. A column ``prediction`` is ignored. Where there are sites, a
patient is known by site and name: number 1 of two hospitals is two people.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from blindtune.errors import InputError
from blindtune.files import whole_file, writing
from blindtune.tables import Line, Table, read_csv

from ._bootstrap import Floats, Integers
from .results import Result

#: (site or None, patient).
Person = tuple[str | None, str]

#: Probabilities count as at least this, so that the logarithm of a printed 0 exists.
FLOOR = 1e-15
#: How far the probabilities of a case may be from 1 in sum: printed digits are few.
_SUM_TOLERANCE = 0.01
_OWN = ("case", "file", "patient", "site", "label", "prediction")
_LAYOUT = "Columns: case, patient, optionally site, label, and one a class with its probability."


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about labelled cases.

    Attributes:
        classes: K names, two or more.
        cases: (n,) names, each once.
        patients: (n,).
        labels: (n,) indices into ``classes``.
        probabilities: (n, K), each row of sum 1, give or take a hundredth; figures are of rows made so.
        sites: (n,), or None.
        cutoff: of two classes, the log-odds above which the second is called; 0 is a probability of one half.

    Raises:
        InputError: shapes do not fit, a case stands twice, or a number is no probability.
    """

    classes: tuple[str, ...]
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    labels: Integers
    probabilities: Floats
    sites: tuple[str, ...] | None = None
    cutoff: float = 0.0

    def __post_init__(self) -> None:
        n, k = len(self.cases), len(self.classes)
        lengths = {
            n,
            len(self.patients),
            len(self.labels),
            len(self.cases if self.sites is None else self.sites),
        }
        if not n or lengths != {n} or self.probabilities.shape != (n, k):
            raise _refused(
                f"columns of lengths {sorted(lengths)} and probabilities {self.probabilities.shape}"
            )
        if k < 2 or len(set(self.classes)) < k or not all(self.classes):
            raise _refused(f"{k} class columns, or two of one name")
        if len(set(self.cases)) < n:
            raise _refused("a case stands twice", "Name every case differently, with its site if need be.")
        if self.labels.min() < 0 or self.labels.max() >= k:
            raise _refused("a label that no class has")
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise _refused("a number that is no probability", "Write shares between 0 and 1.")
        if (np.abs(self.probabilities.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
            raise _refused(
                "probabilities of a case that do not sum to 1", "Write softmax outputs, not scores."
            )
        if self.cutoff and k > 2:
            raise _refused("a cutoff for more than two classes", "Leave it at 0.")

    @classmethod
    def of(cls, result: Result, cases: Sequence[str], patients: Sequence[str]) -> Predictions:
        """What a judged head of two or more exclusive classes said, case by case.

        Raises:
            InputError: a head of another kind, or as :class:`Predictions`.
        """
        from scipy.special import expit, softmax

        kind, logits = result.metrics.kind, result.logits
        if kind not in ("binary", "multiclass"):
            raise _refused(f"a {kind} head", "Tables of predictions are for classes that exclude each other.")
        if kind == "binary":
            probabilities = np.stack([expit(-logits), expit(logits)], axis=1)
        else:
            probabilities = softmax(logits, axis=1)
        labels = result.labels.astype(np.int64)
        classes, cutoff = result.metrics.classes, result.metrics.cutoff
        return cls(classes, tuple(cases), tuple(patients), labels, probabilities, cutoff=cutoff)

    def __len__(self) -> int:
        return len(self.cases)

    @cached_property
    def people(self) -> tuple[Person, ...]:
        """(n,) who each case is of."""
        return tuple(zip(self.sites or (None,) * len(self), self.patients, strict=True))

    @cached_property
    def unit(self) -> Integers:
        """(n,) patients as indices 0 … units − 1."""
        index: dict[Person, int] = {}
        return np.array([index.setdefault(person, len(index)) for person in self.people], dtype=np.int64)

    @property
    def log_probabilities(self) -> Floats:
        """(n, K), finite."""
        return np.log(np.maximum(self.probabilities, FLOOR))

    @property
    def logits(self) -> Floats:
        """Log-odds of the second of two classes (n,), else the logarithms (n, K)."""
        logs = self.log_probabilities
        return logs[:, 1] - logs[:, 0] if len(self.classes) == 2 else logs

    def result(self, *, resamples: int = 1000, seed: int = 0) -> Result:
        """Figures with intervals by patient; two classes make a binary head."""
        return Result.of(
            self.logits,
            self.labels,
            self.classes,
            kind="binary" if len(self.classes) == 2 else "multiclass",
            groups=self.unit,
            resamples=resamples,
            seed=seed,
            cutoff=self.cutoff,
        )

    def take(self, rows: Integers) -> Predictions:
        """The cases of these indices, in this order."""
        at = rows.tolist()
        return replace(
            self,
            cases=tuple(self.cases[i] for i in at),
            patients=tuple(self.patients[i] for i in at),
            labels=self.labels[rows],
            probabilities=self.probabilities[rows],
            sites=None if self.sites is None else tuple(self.sites[i] for i in at),
        )

    def by_site(self) -> dict[str, Predictions]:
        """The cases of each site, sites in alphabetical order; nothing without sites."""
        names = np.array(self.sites or ())
        return {str(name): self.take(np.flatnonzero(names == name)) for name in np.unique(names)}

    def to_csv(self) -> str:
        """The table of this module's first lines.

        Raises:
            InputError: a class is called like one of the other columns.
        """
        if taken := sorted({name for name in self.classes if name.lower() in _OWN}):
            raise _refused(f"classes called {taken}", "Rename them: columns have these names.")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        sites = None if self.sites is None else list(self.sites)
        writer.writerow(["case", "patient", *(["site"] if sites else []), "label", *self.classes])
        for i, (case, patient, label) in enumerate(zip(self.cases, self.patients, self.labels, strict=True)):
            site = [sites[i]] if sites else []
            writer.writerow(
                [case, patient, *site, self.classes[label], *(f"{p:.9g}" for p in self.probabilities[i])]
            )
        return text.getvalue()

    def write(self, path: Path) -> None:
        """Write the table, for its owner alone: it holds patients.

        Raises:
            InputError: as :meth:`to_csv`, or the file cannot be written.
        """
        text = self.to_csv()
        with writing("predictions", path.name), whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")


def read_predictions(path: Path) -> Predictions:
    """Read a table of predictions; comma, semicolon or tab between cells.

    Raises:
        InputError: not a table, a column or cell is missing, a label that no column of a class names, or
            as :class:`Predictions`. Messages give lines and counts, never a patient.
    """
    table = read_csv(path, _LAYOUT)
    case = table.required("case", ("case", "file"), _LAYOUT)
    patient = table.required(
        "patient", ("patient",), "Add it: intervals are by patient. Without any, repeat the case there."
    )
    label = table.required("label", ("label",), _LAYOUT)
    site = table.position("site")
    of_class = [i for i, name in enumerate(table.header) if name.lower() not in _OWN]
    classes = tuple(table.header[i] for i in of_class)
    index = {name: k for k, name in enumerate(classes)}
    said = [table.cell(line, label, "label") for line in table.lines]
    unknown = [line.number for line, name in zip(table.lines, said, strict=True) if name not in index]
    if unknown:
        raise InputError(
            f"{len(unknown)} label(s) that no column of a class names, the first in line {unknown[0]}",
            where=table.where,
            remedy=f"The class columns are {', '.join(classes) or 'missing'}; labels must be spelled so.",
        )
    rows = [[_probability(table, line, i) for i in of_class] for line in table.lines]
    try:
        return Predictions(
            classes,
            tuple(table.cell(line, case, "case") for line in table.lines),
            tuple(table.cell(line, patient, "patient") for line in table.lines),
            np.array([index[name] for name in said], dtype=np.int64),
            np.array(rows, dtype=np.float64).reshape(len(rows), len(classes)),
            None if site is None else tuple(table.cell(line, site, "site") for line in table.lines),
        )
    except InputError as error:
        raise InputError(error.what, where=table.where, remedy=error.remedy) from None


def together(models: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """The same models with cases and classes in the order of the first.

    Raises:
        InputError: they were not asked about the same cases, or tell patients, sites, labels or classes
            differently.
    """
    aligned: dict[str, Predictions] = {}
    for name, one in models.items():
        if not aligned:
            first, position = one, {case: i for i, case in enumerate(one.cases)}
            aligned[name] = one
            continue
        lacking = len(position.keys() - set(one.cases)), len(set(one.cases) - position.keys())
        if any(lacking):
            raise InputError(
                f"{lacking[0]} case(s) of the first model are missing, {lacking[1]} are not its own",
                where=f"model {name!r}",
                remedy="Compare models on the same test cases.",
            )
        if set(one.classes) != set(first.classes):
            raise InputError(
                f"other classes ({', '.join(one.classes)})",
                where=f"model {name!r}",
                remedy="Compare models of the same classes.",
            )
        order = np.argsort(np.array([position[case] for case in one.cases]))
        columns = [one.classes.index(label) for label in first.classes]
        sorted_ = one.take(order)
        relabelled = np.array(columns).argsort()[sorted_.labels]
        if sorted_.people != first.people or not np.array_equal(relabelled, first.labels):
            raise InputError(
                "a case has another patient, site or label than with the first model",
                where=f"model {name!r}",
                remedy="Write both tables from the same list of cases.",
            )
        # With two classes in another order the cutoff counts for the other one.
        cutoff = sorted_.cutoff if columns == sorted(columns) else -sorted_.cutoff
        aligned[name] = replace(
            sorted_,
            classes=first.classes,
            labels=relabelled,
            probabilities=sorted_.probabilities[:, columns],
            cutoff=cutoff,
        )
    return aligned


def _probability(table: Table, line: Line, at: int) -> float:
    try:
        return float(table.cell(line, at, f"probability of {table.header[at]}"))
    except ValueError:
        raise InputError(
            f"line {line.number}: column '{table.header[at]}' is no number",
            where=table.where,
            remedy=_LAYOUT,
        ) from None


def _refused(what: str, remedy: str = _LAYOUT) -> InputError:
    return InputError(what, where="predictions", remedy=remedy)
