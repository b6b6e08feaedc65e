"""PriMIA's case study, on real paediatric chest X-rays: normal, bacterial or viral, three unequal hospitals.

    python -m benchmarks.casestudy --shared ../shared --work /tmp/blindtune-case [--parts heads networks
        private-networks]

Patients of the training and validation splits are drawn over three sites; all models are judged on the same
310 test scans, which no training and no choice has seen. Heads are on features of a frozen DeiT-tiny;
networks are trained end to end. Written to ``docs/casestudy.md`` and ``benchmarks/results/casestudy.json``,
with a page of curves and tables in the work directory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.casepage import PAGE, TITLES, write
from benchmarks.commands import ROOT, keep, kept, machine, server
from benchmarks.datasets import weights_of, xrays
from blindtune.client.blind import HttpProvider
from blindtune.client.features import embed_cohort, load_scan
from blindtune.client.remote import Remote
from blindtune.federation.agreement import Agreement, HeadModel, Local, NetworkModel, Privacy
from blindtune.federation.blind import BlindLearner
from blindtune.federation.contributions import known, summed
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.federation.learner import Learner, counts, site_sum
from blindtune.federation.networks import Images, NetworkLearner
from blindtune.federation.private import spent
from blindtune.federation.setup import draft, numbered, raw_head
from blindtune.federation.simulation import simulated
from blindtune.imaging import Cohort, Embeddings, load_cohort
from blindtune.models.networks import build_network
from blindtune.models.softmax import probabilities as softmax
from blindtune.privacy.account import Release, noise_for
from blindtune.privacy.ledger import Ledger
from blindtune.report import Course, Predictions, Run, judge, write_run_report

SHARES = {"north": 0.5, "east": 0.3, "south": 0.2}
DELTA, SAMPLING, STEPS = 1e-4, 0.2, 30
WHITENED = {"directions": 64, "epsilon": 0.1, "reach": 32.0}


Told = Callable[[Agreement, Any, Mapping[str, Any]], np.ndarray]
"""What a model says of the test scans, from its plan, values and the confederation's sums."""


@dataclass
class Study:
    """The data, and what was found so far."""

    cohort: Cohort
    data: Embeddings
    sites: dict[str, np.ndarray]
    work: Path
    shared: Path
    models: dict[str, Predictions] = field(default_factory=dict)
    courses: dict[str, Course] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def rows(self, site: str | None, split: str) -> np.ndarray:
        """Rows of a split, at a site or at all."""
        rows = self.data.indices(split)
        return rows if site is None else rows[self.sites[site][rows]]

    def cases(self, site: str | None, split: str) -> Cases:
        """Features of a split."""
        rows = self.rows(site, split)
        return Cases(self.data.features[rows], self.data.labels[rows], numbered(self.data.patients)[rows])

    @property
    def patients(self) -> dict[str, int]:
        """Training patients of every site."""
        return {s: len(np.unique(self.cases(s, "train").patients)) for s in SHARES}

    def record(self, name: str, probabilities: np.ndarray, **about: Any) -> None:
        """Keep what a model says of the test cases."""
        rows = self.data.indices("test")
        self.models[name] = Predictions(
            self.data.classes,
            tuple(f"row {r}" for r in rows),
            tuple(self.data.patients[r] for r in rows),
            self.data.labels[rows],
            probabilities,
        )
        self.about[name] = about
        print(f"{name}: {about}", flush=True)


def prepare(shared: Path, work: Path) -> Study:
    """Features, and patients over sites."""
    folder, _, labels, *_ = xrays(shared, work)
    cohort = load_cohort(folder, labels)
    data, _ = embed_cohort(cohort, "deit_tiny_patch16_224", weights_of(shared), work / "features")
    patients = np.array(data.patients)
    names = np.random.default_rng(0).permutation(np.unique(patients))
    ends = np.cumsum([round(s * len(names)) for s in SHARES.values()])
    of = dict(zip(SHARES, np.split(names, ends[:-1]), strict=True))
    return Study(cohort, data, {s: np.isin(patients, p) for s, p in of.items()}, work, shared)


def federate(
    study: Study,
    name: str,
    plan: Agreement,
    start: np.ndarray,
    learner: Callable[[str], Learner],
    told: Told,
    ledgers: dict[str, Path] | None = None,
) -> None:
    """Run a plan over the sites, each with its own keys and journal, and judge its model."""
    place = study.work / "runs" / name.replace(" ", "-")
    shutil.rmtree(place, ignore_errors=True)
    learners, began = {s: learner(s) for s in SHARES}, time.perf_counter()
    with simulated(plan, start, learners, place, ledgers=ledgers) as coordinator:
        rounds = [asdict(r) for r in coordinator.run()]
        seconds = time.perf_counter() - began
        epsilons = [spent(plan, DELTA, n + 1) for n in range(len(rounds))] if plan.privacy else None
        study.courses[name] = Course.of(rounds, epsilon=epsilons)
        probabilities = told(plan, coordinator.values, coordinator.totals)
    about = {"rounds": len(rounds), "seconds": seconds, "secure": plan.secure}
    study.record(name, probabilities, **about, **({"epsilon": epsilons[-1]} if epsilons else {}))
    np.save(study.work / f"{name.replace(' ', '-')}.npy", coordinator.values)


def by_itself(
    study: Study, name: str, plan: Agreement, start: np.ndarray, learner: Learner, told: Told
) -> None:
    """Train at one site for as many rounds as a plan has, and judge its model."""
    totals = {"images": counts(learner.training.labels, len(plan.classes)).astype(float)}
    if needed := summed(plan):
        totals[needed[0]] = site_sum(learner, needed[1])
    learner.begin(known(plan, totals))
    values, began = start, time.perf_counter()
    for _ in range(plan.rounds):
        values = learner.train(values)
    seconds = time.perf_counter() - began
    scans = len(learner.training.labels)
    study.record(name, told(plan, values, totals), scans=scans, seconds=seconds)


def heads(study: Study) -> None:
    """Heads on frozen features: local, federated, secure, private, blind, and all data in one place."""
    classes = list(study.data.classes)
    features = study.data.features.shape[1]
    local = Local(every=2, batch=32, rate=0.05, class_weights=True)
    model = HeadModel(features=features, **WHITENED)

    def tell(plan: Agreement, values: Any, totals: Mapping[str, Any]) -> np.ndarray:
        weights, biases = raw_head(plan, plan.model, values, totals)
        return softmax(study.cases(None, "test").features @ weights.T + biases)

    def site(plan: Agreement) -> Callable[[str], Learner]:
        return lambda s: HeadLearner(
            plan.model, study.cases(s, "train"), study.cases(s, "val"), len(classes), plan.local, seed=0
        )

    for name, where in (("pooled", None), *((f"local {s}", s) for s in SHARES)):
        plan, start = draft("local", classes, model, rounds=10, local=local)
        alone = HeadLearner(
            model, study.cases(where, "train"), study.cases(where, "val"), len(classes), local, seed=0
        )
        by_itself(study, name, plan, start, alone, tell)
    for name, secure in (("federated", False), ("federated, secure", True)):
        plan, start = draft("xrays", classes, model, rounds=10, local=local, secure=secure)
        federate(study, name, plan, start, site(plan), tell)
    for target in (8.0, 3.0, 1.0):
        plan, start = draft("private", classes, **private(study, features, target))
        name = f"federated, secure, epsilon {target:g}"
        federate(study, name, plan, start, site(plan), tell, ledgers(study, target))
    blind(study, classes, features, tell)


def private(study: Study, features: int, target: float) -> dict[str, Any]:
    """A private plan: gradients by patient, noise by all sites together, and a noisy mean."""
    mean = Release(20 / target)
    noise = noise_for(target, DELTA, sampling=SAMPLING, count=STEPS, spent=[mean])
    return {
        "model": HeadModel(features=features, centre=True, reach=28.0),
        "rounds": STEPS,
        "local": Local(every=1, unit="batches", rate=0.1 if target > 1 else 0.03),
        "privacy": Privacy(
            noise=noise,
            clip=10.0,
            sampling=SAMPLING,
            patients=study.patients,
            survivors=len(SHARES),
            moments=mean.noise,
        ),
    }


def ledgers(study: Study, target: float) -> dict[str, Path]:
    """A new ledger for every site, with room for so much."""
    found = {s: study.work / f"{s}-{target:g}.ledger" for s in SHARES}
    for path in found.values():
        path.unlink(missing_ok=True)
        Ledger.create(path, target, DELTA).close()
    return found


def blind(study: Study, classes: list[str], features: int, tell: Any) -> None:
    """Four rounds whose steps run on ciphertexts, at a server in a process of its own."""
    model = HeadModel(features=features, loss="one-vs-rest", blind=True, **WHITENED)
    local = Local(every=1, unit="batches", batch=model.rows, rate=4.0, class_weights=True)
    plan, start = draft("blind", classes, model, rounds=4, local=local)
    for s in SHARES:
        shutil.rmtree(study.work / "blind" / s, ignore_errors=True)

    def clear(s: str) -> Learner:
        return HeadLearner(model, study.cases(s, "train"), study.cases(s, "val"), len(classes), local)

    federate(study, "blind steps in clear", plan, start, clear, tell)
    with (
        server(study.work / "cloud", os.cpu_count() or 1) as (url, token),
        Remote(url, token) as remote,
    ):

        def encrypted(s: str) -> Learner:
            cases = study.cases(s, "train"), study.cases(s, "val")
            return BlindLearner(plan, *cases, study.work / "blind" / s, HttpProvider(remote))

        federate(study, "blind federation", plan, start, encrypted, tell)
    found, wanted = (np.load(study.work / f"{n}.npy") for n in ("blind-federation", "blind-steps-in-clear"))
    study.about["blind federation"]["largest difference from the same steps in clear"] = float(
        np.abs(found - wanted).max() / np.abs(wanted).max()
    )


def networks(study: Study) -> None:
    """Networks end to end: ResNet-18 from scratch, as no weights are here, and DeiT-tiny from ImageNet's."""
    from_scratch = NetworkModel(network="resnet18", channels=1, side=96)
    deit = NetworkModel(
        network="deit_tiny_patch16_224", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    network(study, "ResNet-18 from scratch, 96 px", from_scratch, 8, Local(batch=16, rate=0.02, momentum=0.9))
    network(study, "DeiT-tiny, 224 px", deit, 3, Local(batch=16, rate=0.005, momentum=0.9))


def private_networks(study: Study) -> None:
    """A network that is small enough for exact noise on two cores, with and without privacy."""
    model = NetworkModel(network="test_efficientnet_gn", channels=1, side=64, mean=[0.5], std=[0.2])
    name = "EfficientNet of 99,535 values from scratch, 64 px"
    network(study, name, model, 8, Local(batch=16, rate=0.02, momentum=0.9))
    noise = noise_for(8.0, DELTA, sampling=0.5, count=STEPS)
    privacy = Privacy(noise=noise, sampling=0.5, patients=study.patients, survivors=len(SHARES))
    network(study, name, model, STEPS, Local(every=1, unit="batches", rate=1.0), privacy)


def network(
    study: Study, name: str, model: NetworkModel, rounds: int, local: Local, privacy: Privacy | None = None
) -> None:
    """One network over the sites with secure sums; private at epsilon 8, or else at the largest site too."""
    weights = weights_of(study.shared) if model.network.startswith("deit") else None
    classes = list(study.data.classes)
    plan, start = draft(
        "network", classes, model, rounds=rounds, local=local, privacy=privacy, weights=weights
    )
    pixels = np.stack([np.rint(load_scan(f, model.side) * 255) for f in study.cohort.files]).astype(np.uint8)
    pixels = np.repeat(pixels[:, None], model.channels, axis=1)

    def images(where: str | None, split: str) -> Images:
        rows = study.rows(where, split)
        return Images(pixels[rows], study.data.labels[rows], numbered(study.data.patients)[rows])

    def built(training: Images, validation: Images) -> NetworkLearner:
        net = build_network(model.network, len(classes), channels=model.channels, size=model.side)
        return NetworkLearner(net, model, training, validation, len(classes), local)

    def tell(plan: Agreement, values: Any, totals: Mapping[str, Any]) -> np.ndarray:
        judge_of = built(images("south", "train"), images(None, "test"))
        judge_of.begin(known(plan, totals))
        return judge_of.predict(values)

    def site(s: str) -> NetworkLearner:
        return built(images(s, "train"), images(s, "val"))

    secure = f"{name}: federated, secure"
    if privacy:
        federate(study, f"{secure}, epsilon 8", plan, start, site, tell, ledgers(study, 8.0))
        return
    federate(study, secure, plan, start, site, tell)
    alone = built(images("north", "train"), images("north", "val"))
    by_itself(study, f"{name}: local north", plan, start, alone, tell)


def found(study: Study) -> dict[str, Any]:
    """Figures, differences and tests, as JSON; also the page in the work directory."""
    seen = {(None, p) for p, s in zip(study.data.patients, study.data.splits, strict=True) if s != "test"}
    run = Run(
        models=study.models,
        courses=study.courses,
        reference="local north" if "local north" in study.models else next(iter(study.models)),
        seen=seen,
        title="Paediatric chest X-rays, three hospitals",
        summary="PriMIA's case study: normal, bacterial and viral; all models on the same test scans.",
        notes=[
            "Site sizes are drawn by patient; the sites share one source of data, so they differ by chance."
        ],
    )
    judged = judge(run)
    write_run_report(study.work / "casestudy.html", judged)
    sites = {
        s: {
            "scans": {split: len(study.rows(s, split)) for split in ("train", "val")},
            "patients": study.patients[s],
        }
        for s in SHARES
    }
    return {"machine": machine(), "sites": sites, "about": study.about, "judged": judged.to_json()}


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--work", type=Path, default=Path("/tmp/blindtune-case"))
    parser.add_argument("--parts", nargs="*", choices=list(TITLES), default=list(TITLES))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    results = kept("casestudy") or {}
    for part in given.parts:
        study = prepare(given.shared, given.work)
        {"heads": heads, "networks": networks, "private-networks": private_networks}[part](study)
        results[part] = found(study)
        (given.work / "casestudy.html").rename(given.work / f"{part}.html")
        keep("casestudy", results)
        write(results)
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
