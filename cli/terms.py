"""Terms of studies under a joint key at the terminal: made from options, shown to whoever approves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindtune.cli import render

if TYPE_CHECKING:
    from blindtune.federation.threshold.private import SumPrivacy
    from blindtune.federation.threshold.terms import Task, Terms


def task_of(*, classes: list[str], rates: list[float], privacy: SumPrivacy | None, **model: Any) -> Task:
    """A task from what was given.

    Raises:
        InputError: what does not fit; says the first thing that is wrong.
    """
    from pydantic import ValidationError

    from blindtune.errors import InputError
    from blindtune.federation.agreement import HeadModel
    from blindtune.federation.threshold.terms import Task

    try:
        head = HeadModel(loss="one-vs-rest", blind=True, **model)
        return Task(model=head, classes=classes, rates=rates, privacy=privacy)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InputError(
            f"not a study: {'.'.join(map(str, first['loc']))} {first['msg']}", remedy="See --help."
        ) from None


def privacy_of(epsilon: float | None, delta: float | None, rows: int) -> SumPrivacy | None:
    """Noise on the sums from what was given; None for exact ones.

    Raises:
        InputError: a delta without an epsilon.
        PrivacyError: a delta that cannot be.
        MissingPackageError: dp-accounting is not installed.
    """
    from blindtune.errors import InputError
    from blindtune.federation.threshold.private import SumPrivacy

    if epsilon is None:
        if delta is not None:
            raise InputError("no noise to tell it of", where="--delta", remedy="Give --sums-epsilon as well.")
        return None
    return SumPrivacy.within(epsilon, 0.1 / rows if delta is None else delta)


def told_of(terms: Terms) -> dict[str, Any] | None:
    """The account of the sums' noise, for scripts; None where they are exact."""
    privacy = terms.task.privacy if terms.task else None
    if privacy is None or terms.task is None:
        return None
    found = {"epsilon": privacy.epsilon, "delta": privacy.delta, "noise": privacy.noise}
    return {**found, "reach": terms.task.model.reach, "covers": "counts and moments alone, not the head"}


def account(terms: Terms, json_: bool) -> Any:
    """The same, in words unless a script asks."""
    told = told_of(terms)
    if told is None or json_:
        return told
    return (
        f"epsilon {told['epsilon']:.3g} at delta {told['delta']:.2g} of each patient, against all other "
        f"hospitals together with the server; covers {told['covers']}"
    )


def revealed(terms: Terms) -> list[tuple[str, str, str]]:
    """Phase, what the server sees, what the other hospitals see."""
    sums = "counts of each class, pooled mean and covariance"
    head = "the head, and nothing else"
    if terms.task and terms.task.privacy:
        sums += ", under noise"
        head += "; it is trained on exact rows"
    return [
        ("approve", "shares of public keys", "the same; nothing of data"),
        ("contribute: sums", "sealed bytes, their length", sums),
        ("contribute: rows", "ciphertexts, how many blocks", "nothing"),
        ("training", "ciphertexts, the program", "nothing"),
        ("refreshes, if any", "parts under masks", "the same; nothing of data"),
        ("open", "who consents; sealed bytes", head),
    ]


def tell(terms: Terms, json_: bool, **more: Any) -> None:
    """Terms for people who are to approve them."""
    p, program, task = terms.checked_parameters, terms.program, terms.task
    told: dict[str, Any] = {
        "study": terms.study,
        "fingerprint": terms.fingerprint,
        "version": terms.code,
        "members": list(terms.roster.names),
        "classes": task.classes if task else [],
        "features": task.model.features if task else None,
        "directions": task.model.directions if task else None,
        "steps": program.steps,
        "refreshed_after_steps": program.refreshes,
        "degree": program.degree,
        "rates": task.rates if task else [],
        "ring_degree": p.ring_degree,
        "modulus_bits": round(p.modulus_bits, 1),
        "security": p.security_name,
        "results": terms.results,
        "privacy": account(terms, json_),
        "noise_of_a_slot": f"{terms.error:.2g}",
        **more,
    }
    if json_:
        phases = [dict(zip(("phase", "server", "hospitals"), row, strict=True)) for row in revealed(terms)]
        keys = {name: terms.members[name] for name in terms.roster.names}
        render.print_json({**told, "keys": keys, "revealed": phases})
        return
    render.tell("Study", told, False)
    render.rows(
        "What each phase shows",
        [
            (phase, f"server: {server}; hospitals: {hospitals}")
            for phase, server, hospitals in revealed(terms)
        ],
    )
