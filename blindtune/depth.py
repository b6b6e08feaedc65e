"""More steps than levels: whether a program fits, and else what a refresh or a bootstrap costs.

A joint key's weights are refreshed by the hospitals, a single owner's are bootstrapped on the server. Seconds
are of one thread with OpenFHE; the constants are processor seconds of the runs in docs/benchmarks/deep.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from blindtune.errors import BlindtuneError, PlanError
from blindtune.he import blob
from blindtune.he.openfhe.bootstrapping import LEFT, SPECIAL_BITS, Bootstrapping
from blindtune.he.openfhe.refresh import LEVELS, part_bytes
from blindtune.kernels.machine import Machine
from blindtune.kernels.training import Program
from blindtune.models.heads import Head
from blindtune.params import SECURITY_TABLE, ParametersLiteral, most_levels
from blindtune.plan import Plan, check_level, plan, smallest_parameters

JOINT = (55, 56, 60)
"""Bits of scale, first and special prime under a joint key: smudging takes twenty bits of the scale and more;
OpenFHE switches keys by the largest 60-bit prime."""

LIBRARY = 24.0
"""How much slower OpenFHE is than the accelerated kernels that a plan's seconds are of."""

PART_SECONDS = 3e-7
"""Of a hospital's part in a refresh: a coefficient and limb of a fresh ciphertext."""

BOOTSTRAP_SECONDS = 27.0
"""Of a weight ciphertext at ring degree 65,536."""


@dataclass(frozen=True)
class Way:
    """One way to train so many steps.

    Attributes:
        name: ``levels`` (no refresh at all), ``refresh`` or ``bootstrapping``.
        plan: parameters, packing and program; None where it cannot be done.
        why_not: empty where it can.
        rounds: in which every hospital has to answer while the server trains.
        sent, received: bytes of one hospital in all rounds.
        key_bytes: evaluation keys.
        seconds: of the server, hospitals' answers excepted.
        hospital_seconds: of one hospital in all rounds.
        memory: of the server, in bytes.
    """

    name: Literal["levels", "refresh", "bootstrapping"]
    plan: Plan | None = None
    why_not: str = ""
    rounds: int = 0
    sent: int = 0
    received: int = 0
    key_bytes: int = 0
    seconds: float = 0.0
    hospital_seconds: float = 0.0
    memory: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        found: dict[str, Any] = {
            "way": self.name,
            "possible": not self.why_not,
            "why_not": self.why_not,
            "rounds": self.rounds,
            "sent_bytes": self.sent,
            "received_bytes": self.received,
            "key_bytes": self.key_bytes,
            "server_seconds": round(self.seconds, 1),
            "hospital_seconds": round(self.hospital_seconds, 1),
            "memory_bytes": self.memory,
        }
        if self.plan is not None:
            p = self.plan.parameters
            found |= {
                "ring_degree": p.ring_degree,
                "levels": p.levels,
                "refreshes": list(self.plan.program.refreshes),
                "upload_bytes": self.plan.cost.upload_bytes,
            }
        return found


def ways(
    rows: int,
    columns: int,
    outputs: int,
    head: Head,
    *,
    joint: bool,
    member_rows: tuple[int, ...] | None = None,
    security: int = 128,
    memory_limit: int = 16 << 30,
    machine: Machine | None = None,
) -> list[Way]:
    """All ways to train a head, the one to take first; those that cannot be done last.

    Args:
        joint: whether several hospitals hold the key together.
        rows, columns, outputs, member_rows, security, memory_limit, machine: see :func:`blindtune.plan.plan`.

    Raises:
        ParametersError: no such security level.
    """
    check_level(security)

    def planned(parameters: Any, refreshes: tuple[int, ...]) -> Plan:
        return plan(
            rows,
            columns,
            outputs,
            head,
            member_rows=member_rows,
            security=security,
            parameters=parameters,
            refreshes=refreshes,
            memory_limit=memory_limit,
            machine=machine,
        )

    def attempt(name: Literal["levels", "refresh", "bootstrapping"], make: Any) -> Way:
        try:
            found: Way = make()
        except BlindtuneError as error:
            return Way(name, why_not=error.what)
        return found

    def levels() -> Way:
        sizes = {"sizes": (JOINT,)} if joint else {}
        made = planned(smallest_parameters(head.program.levels, security, **sizes), ())
        return _way("levels", made, LIBRARY if joint else 1.0)

    def refresh() -> Way:
        found, reason = [], PlanError("no ring")
        for ring in sorted(SECURITY_TABLE[security]):
            try:
                found.append(_refreshed(planned, head.program, ring, security))
            except PlanError as error:
                reason = error
        if not found:
            raise reason
        return min(found, key=lambda way: way.seconds + way.sent / 50e6)

    def bootstrapping() -> Way:
        literal, given = bootstrapped(head.program, security)
        made = planned(**given)
        return bootstrapping_way(made, for_plan(literal, made, memory_limit))

    made = [
        attempt("levels", levels),
        attempt("refresh", refresh) if joint else attempt("bootstrapping", bootstrapping),
    ]
    return sorted(made, key=lambda way: bool(way.why_not))


def schedule(program: Program, levels: int, left: int) -> tuple[int, ...]:
    """The steps after which weights are made fresh, as late as may be.

    Args:
        levels: of fresh ciphertexts.
        left: that have to be left where weights are made fresh.

    Raises:
        PlanError: not even one step fits between two refreshes.
    """
    marks: tuple[int, ...] = ()
    while replace(program, refreshes=marks).levels_after(program.steps) > levels:
        so_far, first = replace(program, refreshes=marks), (marks or (0,))[-1] + 1
        reached = [r for r in range(first, program.steps) if so_far.levels_after(r) + left <= levels]
        if not reached:
            raise PlanError(
                f"a step of degree {program.degree} and a refresh need more than {levels} levels",
                remedy="Use a lower degree.",
            )
        marks += (reached[-1],)
    return marks


def _refreshed(planned: Any, program: Program, ring: int, security: int) -> Way:
    scale, first, special = JOINT
    most = most_levels(ring, scale, first + special, security)
    marks = schedule(program, most, LEVELS)
    if not marks:
        raise PlanError("no refresh is needed")
    marked = replace(program, refreshes=marks)
    needed = max([marked.levels_after(program.steps), *(marked.levels_after(r) + LEVELS for r in marks)])
    p = ParametersLiteral(ring, needed, scale, first, special, security).checked()
    made: Plan = planned(p, marks)
    blobs = made.layout.weight_blocks * len(made.layout.widths)
    sent = received = limbs = 0
    for number in range(len(marks)):
        for taken in marked.levels_refreshed(number):
            level = p.levels - taken
            header = blob.Header(blob.Kind.CIPHERTEXT, level + 1, seeded=False)
            received += blobs * header.bytes(p)
            sent += blobs * part_bytes(level, p)
            limbs += blobs * (p.levels + 1)
    return replace(
        _way("refresh", made, LIBRARY),
        rounds=len(marks),
        sent=sent,
        received=received,
        hospital_seconds=limbs * ring * PART_SECONDS,
    )


def bootstrapped(program: Program, security: int) -> tuple[Bootstrapping, dict[str, Any]]:
    """How to bootstrap a program under a single owner's key.

    Returns:
        The parameters, for a period that :func:`for_plan` chooses; and arguments of
        :func:`blindtune.plan.plan`.

    Raises:
        PlanError: no ring holds a step and a bootstrap, or none is needed.
    """
    check_level(security)
    literal = _deepest(program, max(SECURITY_TABLE[security]), security)
    marks = schedule(program, literal.levels, LEFT)
    if not marks:
        raise PlanError("no bootstrap is needed", remedy="Plan the study without one.")
    b = literal
    likely = ParametersLiteral(
        b.ring_degree, b.levels, b.scale_bits, b.first_bits, SPECIAL_BITS, security
    ).checked()
    return literal, {"parameters": likely, "refreshes": marks}


def for_plan(literal: Bootstrapping, made: Plan, memory_limit: int) -> Bootstrapping:
    """The parameters for a plan's packing: as many slots are bootstrapped as weights repeat after.

    Raises:
        PlanError: its keys do not fit beside the rows.
    """
    layout = made.layout
    found = replace(literal, period=layout.lanes * max(layout.widths))
    keys = found.memory_bytes(layout.keys())
    if made.cost.memory_bytes + keys > memory_limit:
        raise PlanError(
            f"keys to bootstrap with of {keys / 2**30:.1f} GiB do not fit beside rows of "
            f"{made.cost.memory_bytes / 2**30:.1f} GiB in {memory_limit / 2**30:.1f} GiB",
            remedy="Use fewer rows, or a server with more memory (--memory).",
        )
    return found


def bootstrapping_way(made: Plan, literal: Bootstrapping) -> Way:
    """What a plan costs whose weights are bootstrapped."""
    program, keys = made.program, made.layout.keys()
    blobs = made.layout.weight_blocks * len(made.layout.widths)
    count = sum(blobs * len(program.levels_refreshed(n)) for n in range(len(program.refreshes)))
    plain = _way("bootstrapping", made, LIBRARY)
    return replace(
        plain,
        key_bytes=literal.sent_bytes(keys),
        seconds=plain.seconds + count * BOOTSTRAP_SECONDS,
        memory=plain.memory + literal.memory_bytes(keys),
    )


def _deepest(program: Program, ring: int, security: int) -> Bootstrapping:
    """The most steps between two bootstraps that the ring holds, with the fewest digits that do."""
    one = replace(program, steps=1, sets=(0,), retain=(1.0,), momentum=(), started=True, refreshes=()).levels
    for steps in range(program.steps, 0, -1):
        for digits in range(3, 9):
            literal = Bootstrapping(ring, steps * one + LEFT, 512, digits=digits, security=security)
            if literal.fits:
                return literal
    raise PlanError(
        f"no ring holds a bootstrap and a step of degree {program.degree} at {security}-bit security",
        remedy="Use a lower degree, or fewer steps.",
    )


def _way(name: Literal["levels", "refresh", "bootstrapping"], made: Plan, slower: float) -> Way:
    return Way(
        name,
        made,
        key_bytes=made.cost.key_bytes,
        seconds=made.seconds * slower,
        memory=made.cost.memory_bytes,
    )
