"""What several test files of the reports share: a check of pages, and random predictions."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from blindtune.report import Predictions

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Checker(HTMLParser):
    """Balanced tags, unique ids, no script and no address outside the page."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.text, self.tags, self.used = [], [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.look(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.look(tag, attrs)

    def look(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        assert tag not in {"script", "link", "iframe", "img", "base", "object"}
        if "id" in values:
            self.ids.append(values["id"])
        self.used |= set((values.get("aria-labelledby") or "").split())
        for name, value in attrs:
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href"}:
                assert value.startswith("#")
                self.used.add(value[1:])
            self.used |= set(re.findall(r"url\(#([^)]+)\)", value or ""))
        if tag == "th":
            assert values.get("scope") in {"row", "col"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def text_of():
    """Checks a page, and gives the text that a reader sees."""

    def look(page):
        checker = Checker()
        checker.feed(page)
        checker.close()
        assert checker.open == []
        assert len(checker.ids) == len(set(checker.ids))
        assert checker.used <= set(checker.ids)
        assert "http" not in page
        assert "<script" not in page
        assert "nan" not in re.findall(r"[a-z]+", " ".join(checker.text))
        return "".join(checker.text)

    return look


def draw(seed=0, n=60, classes=("well", "ill"), sites=None, skill=1.5, prefix="P"):
    """Random predictions, two cases a patient; models of one seed judge the same cases."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(classes), n)
    labels[: len(classes)] = np.arange(len(classes))
    logits = random.normal(size=(n, len(classes))) + skill * np.eye(len(classes))[labels]
    shares = np.exp(logits)
    return Predictions(
        tuple(classes),
        tuple(f"{prefix}{i // 2}-{i % 2}.png" for i in range(n)),
        tuple(f"{prefix}{i // 2}" for i in range(n)),
        labels,
        shares / shares.sum(axis=1, keepdims=True),
        None if sites is None else tuple(sites[i // 2 % len(sites)] for i in range(n)),
    )


@pytest.fixture
def predictions():
    """Makes predictions; see :func:`draw`."""
    return draw


@pytest.fixture
def noisier():
    """The same cases by a model that errs more."""

    def blur(one, seed=1, noise=1.5):
        random = np.random.default_rng(seed)
        shares = np.exp(one.log_probabilities + noise * random.normal(size=one.probabilities.shape))
        return replace(one, probabilities=shares / shares.sum(axis=1, keepdims=True))

    return blur
