"""Numbers as people read them: shares in per cent, everything else to three decimals."""

from __future__ import annotations

from .figures import Figure

_SHARES = frozenset(
    {"accuracy", "exact_match", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv"}
)
DASH = "–"
_MINUS = "−"


def percent(share: float) -> str:
    """0.912 → ``91.2 %``; less than all never reads as ``100.0 %``."""
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def value(name: str, figure: Figure) -> str:
    """The figure alone: ``91.2 %``, ``0.946`` or a dash."""
    return DASH if figure.value is None else _number(name, figure.value) + _unit(name)


def interval(name: str, figure: Figure) -> str:
    """``90.1 to 92.3``, or nothing where there is no interval."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{_number(name, figure.low)} to {_number(name, figure.high)}"


def change(name: str, figure: Figure) -> str:
    """A difference with its sign: ``+1.2 points (0.3 to 2.1)``; ``±0.0 points`` where nothing shows."""
    if figure.value is None:
        return DASH
    number, between = _number(name, figure.value), interval(name, figure)
    nothing = _number(name, 0.0)
    sign = "±" if number == nothing else "" if number.startswith(_MINUS) else "+"
    text = sign + number + (" points" if name in _SHARES else "")
    return f"{text} ({between})" if between and between != f"{nothing} to {nothing}" else text


def p_value(p: float) -> str:
    """Two digits that count: ``0.034``, ``0.0021``; ``< 0.001`` below that, and never ``1.000``."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.2g}" if p < 0.995 else "1"


def shortened(text: str, longest: int) -> str:
    """Cut a long name with an ellipsis; the full name stands in the tables."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _number(name: str, number: float) -> str:
    text = f"{100 * number:.1f}" if name in _SHARES else f"{number:.3f}"
    # A tiny negative number must not read as "−0.000".
    return text.lstrip("-") if float(text) == 0 else text.replace("-", _MINUS)


def _unit(name: str) -> str:
    return " %" if name in _SHARES else ""
