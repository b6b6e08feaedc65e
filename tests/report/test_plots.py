"""Drawings: well-formed, themed, safe in threads and with odd names."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest

from blindtune.report import Result, plots


def result(kind, k=3, n=80, seed=0):
    random = np.random.default_rng(seed)
    names = [f"_class {i} $x^{{ <&>" for i in range(k)]
    if kind in ("binary", "regression"):
        labels = random.integers(0, 2, n)
        names = names[:2] if kind == "binary" else names[:1]
        return Result.of(random.normal(size=n) + labels, labels, names, kind=kind, resamples=0)
    labels = random.integers(0, 2, (n, k)) if kind == "multilabel" else random.integers(0, k, n)
    return Result.of(random.normal(size=(n, k)), labels, names, kind=kind, resamples=0)


@pytest.mark.parametrize(
    ("draw", "kind"),
    [
        (plots.roc_by_class, "binary"),
        (plots.roc_by_class, "multiclass"),
        (plots.roc_by_class, "multilabel"),
        (plots.reliability, "binary"),
        (plots.reliability, "multiclass"),
        (plots.reliability, "multilabel"),
        (plots.confusion, "binary"),
        (plots.confusion, "multiclass"),
        (plots.scatter, "regression"),
    ],
)
def test_drawing_is_well_formed_and_themed(draw, kind):
    svg = draw("my <head>", result(kind), prefix="p")
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.find("title").text.endswith("my <head>")
    assert "var(--ink" in svg
    assert not re.search(r"#0[1-5]0[1-5]0[1-6]", svg)
    assert "http" not in svg


def test_many_classes_and_undefined_curves():
    assert ElementTree.fromstring(plots.confusion("x", result("multiclass", k=20, n=400))) is not None
    alone = Result.of([1.0, 2.0], [1, 1], ("a", "b"), resamples=0)
    assert "not defined" in plots.roc_of_heads({"x": alone})


def test_curve_is_thinned_but_keeps_its_area():
    from blindtune.report.plots import _roc

    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 20_000)
    score = random.normal(size=20_000) + labels
    found = Result.of(score, labels, "ab", resamples=0)
    x, y = _roc(score, labels == 1)
    assert len(x) <= 300
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)
    assert area == pytest.approx(found.metrics["roc_auc"].value, abs=2e-3)


def test_threads_draw_what_one_thread_draws():
    heads = [result("binary", seed=seed) for seed in range(6)]
    expected = [plots.roc_by_class("h", head) for head in heads]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda head: plots.roc_by_class("h", head), heads)) == expected
