"""The privacy report: configuration, promises, what they rest on, and what attacks found, on one page.

For a data-protection officer. It holds no picture, path, class or patient, only what is passed in as numbers
and names of methods.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blindtune.audit.results import FORMAT, AttackResult, read_results
from blindtune.client.settings import Settings
from blindtune.errors import InputError
from blindtune.federation.agreement import Agreement, HeadModel
from blindtune.federation.private import spent
from blindtune.report import page

SCHEMA = "blindtune.privacy-report/1"
MAX_FILES = 1000

ASKED = {
    "gradient inversion": "Can a patient's image be rebuilt from what a hospital sends in a round?",
    "embedding from a head's gradient": "Does what a hospital sends reveal a scan's embedding?",
    "scan from an embedding": "Can a scan be drawn again from its embedding?",
    "patient from an embedding": "Does an embedding tell whose it is, given another scan of the patient?",
    "membership inference": "Does the finished model tell whether a patient was among the training data?",
    "one-run privacy audit": "Is the promised epsilon kept in practice?",
    "key recovery": "Does a decrypted value that is passed on reveal the secret key?",
}
"""What each attack asks, in words for people who are not its authors."""


@dataclass(frozen=True)
class Promise:
    """What a configuration promises, or does not.

    Attributes:
        kept: whether it is promised.
        what: in a sentence.
        basis: what it rests on; for what is not promised, what would mend it.
    """

    kept: bool
    what: str
    basis: str


@dataclass(frozen=True)
class PrivacyReport:
    """What the page says.

    Attributes:
        title, summary: of the page.
        date: as it is shown.
        study: a hospital's encrypted study, if there is one.
        plan: of federated rounds, if there are any.
        delta: at which the plan's epsilon is told.
        budget: epsilon, delta and what is spent, of a hospital's ledger.
        results: of attacks.
    """

    title: str = "Privacy report"
    summary: str = ""
    date: str = ""
    study: Settings | None = None
    plan: Agreement | None = None
    delta: float = 1e-5
    budget: tuple[float, float, float] | None = None
    results: Sequence[AttackResult] = field(default_factory=tuple)

    @property
    def epsilon(self) -> float | None:
        """What all rounds of the plan may cost a patient."""
        if self.plan is None or self.plan.privacy is None:
            return None
        return spent(self.plan, self.delta, self.plan.rounds)

    def configuration(self) -> dict[str, dict[str, Any]]:
        """Facts by section."""
        found: dict[str, dict[str, Any]] = {}
        if (study := self.study) is not None:
            found["Encrypted training"] = {
                "members": len(study.members),
                "backbone": study.backbone.get("name", "ready embeddings"),
                "head": study.head.get("name"),
                "classes": len(study.classes),
                "training rows": study.rows,
                "level of security": study.security,
            }
        if (plan := self.plan) is not None:
            model = plan.model
            found["Federated rounds"] = {
                "plan's SHA-256": plan.digest,
                "trained": f"head on {model.backbone or 'ready embeddings'}"
                if isinstance(model, HeadModel)
                else f"{model.network}, end to end",
                "shared parameters": f"{plan.parameters:,}",
                "classes": len(plan.classes),
                "rounds": plan.rounds,
                "secure sums": plan.secure,
                "steps under encryption": isinstance(model, HeadModel) and model.blind,
            }
            if (private := plan.privacy) is not None:
                found["Differential privacy"] = {
                    "unit": "patient",
                    "epsilon of all rounds": self.epsilon,
                    "delta": self.delta,
                    "noise over the clip": private.noise,
                    "clip": private.clip,
                    "sampling": private.sampling,
                    "noise added": "by each hospital for itself"
                    if private.where == "local"
                    else f"by all together, hidden by the sum; {private.survivors} honest ones are enough",
                }
        if self.budget is not None:
            found["Ledger"] = dict(zip(("epsilon", "delta", "spent"), self.budget, strict=True))
        return found

    def promises(self) -> list[Promise]:
        """What the configuration promises and what it does not."""
        found = []
        if (study := self.study) is not None:
            found.append(
                Promise(
                    study.security != "insecure",
                    "The cloud that trains sees ciphertexts only: no scan, embedding, label or weight.",
                    f"Ring learning with errors at {study.security} security"
                    if study.security != "insecure"
                    else "Test parameters: encrypt again with 128 bits or more.",
                )
            )
            if len(study.members) > 1:
                found.append(
                    Promise(
                        False,
                        "Members of the study are hidden from each other.",
                        "They share one secret key: whoever holds it can decrypt the data of all.",
                    )
                )
        if (plan := self.plan) is not None:
            found.append(
                Promise(
                    plan.secure,
                    "The coordinator learns sums of three hospitals or more, and nobody's own update.",
                    "Secure aggregation (Bonawitz et al. 2017); fewer than a third of members on its side"
                    if plan.secure
                    else "Plan secure sums: without them each update can be attacked as below.",
                )
            )
            epsilon = self.epsilon
            found.append(
                Promise(
                    epsilon is not None,
                    "Whoever sees all rounds learns little about whether a patient took part"
                    + ("." if epsilon is None else f": epsilon {epsilon:.3g} at delta {self.delta:g}."),
                    "No privacy noise: sums and the model may tell of single patients. Plan privacy."
                    if epsilon is None
                    else "Clipping by patient, Poisson sampling, discrete Gaussian noise, and the account of "
                    "privacy loss distributions",
                )
            )
        return found

    def assumptions(self) -> list[str]:
        """What has to be true, and nobody can prove."""
        found = ["The hospital's own machine and its users are trusted; disks are encrypted."]
        if self.study is not None:
            found += [
                "The cloud computes what was asked; if not, content stays hidden, but the head may be wrong.",
                "The secret key stays with the hospital, and decrypted values leave under noise only.",
            ]
        if self.plan is not None:
            found.append("Members compared the roster's fingerprint by telephone.")
            if self.plan.secure:
                found.append("Fewer than a third of the members side with the coordinator.")
            if self.plan.privacy is not None:
                found.append("Numbers that tell scans of one patient apart from another's are right.")
            found.append("A member may poison the model within the plan's bound; sums do not show who.")
        return found

    def to_json(self) -> dict[str, Any]:
        """The page as data."""
        return {
            "schema": SCHEMA,
            "title": self.title,
            "date": self.date,
            "configuration": self.configuration(),
            "promises": [asdict(p) for p in self.promises()],
            "assumptions": self.assumptions(),
            "attacks": [r.to_json() for r in self.results],
        }

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write ``privacy.json`` and ``privacy.html``, replacing earlier ones whole.

        Raises:
            InputError: they cannot be written.
        """
        paths = directory / "privacy.json", directory / "privacy.html"
        page.write(paths[0], json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")
        page.write(paths[1], self.html())
        return paths

    def html(self) -> str:
        """The page as text; everything passed in is escaped."""
        attacks: dict[str, dict[str, list[AttackResult]]] = {}
        for r in self.results:
            attacks.setdefault(r.attack, {}).setdefault(r.target, []).append(r)
        promises = self.promises()
        provenance = {"versions": dict(self.results[0].versions)} if self.results else {}
        study = page.checked_study({"title": self.title, "summary": self.summary, "provenance": provenance})
        return page.render(
            "report_privacy.html",
            study,
            date=self.date,
            epsilon=self.epsilon,
            delta=self.delta,
            settings=self.study,
            kept=sum(p.kept for p in promises),
            promises=promises,
            configuration=page.sections(self.configuration()),
            assumptions=self.assumptions(),
            attacks=attacks,
            asked=ASKED,
            controlled=sum(r.control for r in self.results),
            shown=shown,
            columns=columns,
            commands=sorted({r.command for r in self.results if r.command}),
        )


SHARES = ("re-identified", "recovered", "revealed", "linked", "nearest", "TPR", "by chance", "share of")
"""Words in the names of figures that are shares."""

LEFT_OUT = (", p", "distance reached")
"""How names end that the page leaves to the JSON."""


def shown(name: str, value: float) -> str:
    """A figure of an attack as people read it: shares in per cent, others to three digits."""
    if _is_share(name) and 0 <= value <= 1:
        return f"{100 * value:.1f} %"
    return f"{value:.3g}".replace("-", "−")


def columns(rows: Sequence[AttackResult]) -> list[str]:
    """Names of the figures to show of some results: shares first, then chance; tests stay in the JSON."""
    names = dict.fromkeys(name for r in rows for name in r.figures if not name.endswith(LEFT_OUT))
    return sorted(names, key=lambda name: (not _is_share(name), "chance" in name))


def _is_share(name: str) -> bool:
    return any(word in name for word in SHARES)


def collected(places: Sequence[Path]) -> list[AttackResult]:
    """Results in files, and in all result files below directories.

    Raises:
        InputError: nothing there, or a file that is named and holds none.
    """
    found: list[AttackResult] = []
    for place in places:
        if not place.is_dir():
            found += read_results(place)
            continue
        for path in sorted(place.rglob("*.json"))[:MAX_FILES]:
            with path.open("rb") as file:
                begin = file.read(200)
            if FORMAT.encode() in begin:
                found += read_results(path)
    if not found:
        raise InputError(
            "no attack results",
            where=", ".join(p.name for p in places),
            remedy="Run blindtune audit with --out.",
        )
    return found
