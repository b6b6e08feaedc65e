"""One tree, one line each: what, where, remedy."""

from __future__ import annotations

import inspect

import pytest

from blindtune import errors
from blindtune.errors import BlindtuneError

KINDS = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, BlindtuneError)]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_say_what_where_and_what_to_do(kind: type[BlindtuneError]) -> None:
    assert str(kind("it broke")) == "it broke"
    assert str(kind("it broke", where="a.txt")) == "a.txt: it broke"
    error = kind("it broke", where="a.txt", remedy="Mend it.")
    assert str(error) == "a.txt: it broke. Mend it."
    assert (error.what, error.where, error.remedy, error.exit_code) == ("it broke", "a.txt", "Mend it.", 2)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__
    for kind in KINDS:
        assert kind.__name__ in errors.__doc__
    assert len(KINDS) == 14
