"""Several models on one test set, with the courses of the runs that made them: what one report is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blindtune.errors import InputError

from ._bootstrap import Integers
from .course import Course
from .figures import Figure, Metrics
from .labels import check_apart
from .paired import kappa
from .predictions import Person, Predictions, together
from .results import Comparison, Result, compare
from .selection import Selection

SCHEMA = "blindtune.run/1"
#: Stands for the labels of the test set among the models that an expert is compared with.
LABEL = "labels of the test set"


@dataclass(frozen=True)
class Run:
    """What a report is about; models or courses are needed, the rest may be left out.

    Attributes:
        models: name → predictions on the same test cases; the first gives their order.
        courses: name → rounds, under the name of the model that they made.
        reference: the model that the others are compared with; the first by default.
        selections: name → what was chosen for the model on validation cases; applied here.
        seen: patients of training and validation, whom the test set must not share; None if it is not
            known, which the report says.
        experts: name → class of each test case (n,), in the order of the first model's cases.
        classes: names for the validation counts of the courses, where no model tells them.
        title, summary: texts.
        notes: sentences for the reader, in plain language.
        provenance: name → value, or section → name → value; see :func:`~blindtune.report.write_report`.
        resamples: bootstrap replicates.
        seed: of the replicates.
    """

    models: Mapping[str, Predictions] = field(default_factory=dict)
    courses: Mapping[str, Course] = field(default_factory=dict)
    reference: str | None = None
    selections: Mapping[str, Selection] = field(default_factory=dict)
    seen: Collection[Person] | None = None
    experts: Mapping[str, Integers] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    title: str = ""
    summary: str = ""
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Reading:
    """A model, or the labels, beside an expert: share of cases told alike, and Cohen's κ."""

    same: float
    kappa: Figure


@dataclass(frozen=True)
class Group:
    """Test cases of a site, or of all where it is None: cases, patients, and cases by class."""

    site: str | None
    n: int
    patients: int
    by_class: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """What :func:`judge` found.

    Attributes:
        run: what was judged.
        results: model → result, in the run's order; empty without models.
        comparison: of all models; None without.
        sites: model → site → metrics; empty without sites.
        experts: expert → model, or :data:`LABEL` → reading.
        groups: the test set as a whole, then by site.
    """

    run: Run
    results: Mapping[str, Result]
    comparison: Comparison | None
    sites: Mapping[str, Mapping[str, Metrics]]
    experts: Mapping[str, Mapping[str, Reading]]
    groups: tuple[Group, ...]

    def to_json(self) -> dict[str, Any]:
        """Strings, numbers, None, lists and dicts only; nothing about a single patient."""
        checked = self.run.seen
        return {
            "schema": SCHEMA,
            "test": [{**vars(one), "by_class": list(one.by_class)} for one in self.groups],
            "seen_patients": None if checked is None else len(set(checked)),
            "models": {name: result.metrics.to_json() for name, result in self.results.items()},
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "selections": {name: one.to_json() for name, one in self.run.selections.items()},
            "sites": {
                name: {site: metrics.to_json() for site, metrics in sites.items()}
                for name, sites in self.sites.items()
            },
            "experts": {
                expert: {
                    name: {"same": one.same, "kappa": dict(vars(one.kappa))} for name, one in readings.items()
                }
                for expert, readings in self.experts.items()
            },
            "courses": {
                name: [one.model_dump(mode="json") for one in course.rounds]
                for name, course in self.run.courses.items()
            },
        }


def judge(run: Run) -> Judged:
    """Work out the figures of a run.

    Raises:
        InputError: neither models nor courses, models of other cases, a test patient that was seen before,
            a selection of no model, or an expert with another number of cases.
    """
    if not run.models and not run.courses:
        raise InputError("neither a model nor rounds", where="run", remedy="Hand in predictions or a course.")
    if strangers := run.selections.keys() - run.models.keys():
        raise InputError(
            f"choices for {sorted(strangers)}, which is no model here",
            where="selections",
            remedy=f"The models are {sorted(run.models)}.",
        )
    models = together(
        {
            name: run.selections[name].apply(one) if name in run.selections else one
            for name, one in run.models.items()
        }
    )
    if not models:
        return Judged(run, {}, None, {}, {}, ())
    first = next(iter(models.values()))
    if run.seen is not None:
        check_apart(first, run.seen)
    results = {name: one.result(resamples=run.resamples, seed=run.seed) for name, one in models.items()}
    sites = first.by_site()
    return Judged(
        run=run,
        results=results,
        comparison=compare(results, reference=run.reference or next(iter(results))),
        sites={name: _by_site(one, run) for name, one in models.items()} if sites else {},
        experts={name: _readings(name, labels, first, results, run) for name, labels in run.experts.items()},
        groups=(_group(None, first), *(_group(site, part) for site, part in sites.items())),
    )


def _by_site(model: Predictions, run: Run) -> dict[str, Metrics]:
    return {
        site: part.result(resamples=run.resamples, seed=run.seed).metrics
        for site, part in model.by_site().items()
    }


def _group(site: str | None, part: Predictions) -> Group:
    counts = Counter(part.labels.tolist())
    return Group(site, len(part), len(set(part.people)), tuple(counts[k] for k in range(len(part.classes))))


def _readings(
    expert: str, labels: Integers, first: Predictions, results: Mapping[str, Result], run: Run
) -> dict[str, Reading]:
    if labels.shape != (len(first),):
        raise InputError(
            f"{labels.shape} labels for {len(first)} cases",
            where=f"expert {expert!r}",
            remedy="Give one class index a case, in the order of the first model's cases.",
        )
    decided = {LABEL: first.labels, **{name: result.decisions for name, result in results.items()}}
    return {
        name: Reading(
            float(np.mean(one == labels)),
            kappa(one, labels, first.unit, resamples=run.resamples, seed=run.seed),
        )
        for name, one in decided.items()
    }
