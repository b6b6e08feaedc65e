"""A whole federation in one process, at the terminal: the rounds of a study, or the trials of a search."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindtune.cli import render
from blindtune.cli.rounds import (
    Colluding,
    Fewest,
    Lines,
    PlanFile,
    StartFile,
    Weights,
    images,
    policy_of,
)
from blindtune.cli.tally import Tally
from blindtune.cli.trials import Trials

if TYPE_CHECKING:
    from blindtune.federation.agreement import Agreement
    from blindtune.federation.learner import Learner
    from blindtune.federation.setup import Maker

Sites = Annotated[Path, typer.Argument(help="A folder with one of scans, or one .npz, for each site.")]
Out = Annotated[Path, typer.Option(help="Where coordinator and sites are kept; made if missing.")]
By = Annotated[
    str | None, typer.Option(help="Column of --labels that names the site; DATA is one folder then.")
]
Labels = Annotated[Path | None, typer.Option(help="CSV for --by; DATA/labels.csv by default.")]
TrialCount = Annotated[int, typer.Option(help="Trainings to try, in all.", min=1, max=10_000)]
Objective = Annotated[str, typer.Option(help="mcc or auc, of securely summed validation counts.")]
Ledgers = Annotated[
    Path | None,
    typer.Option(help="Folder with SITE.ledger for each site, from blindtune dp open, for a private plan."),
]


def run(
    plan: PlanFile,
    data: Sites,
    out: Out,
    by: By = None,
    labels: Labels = None,
    start: StartFile = None,
    weights: Weights = None,
    ledgers: Ledgers = None,
    fewest: Fewest = 3,
    colluding: Colluding = None,
    json_: Lines = False,
) -> None:
    """Simulate a federation in this process: coordinator and sites as over a network, without one.

    Blind rounds compute on ciphertexts here, as a provider would.
    """
    from blindtune.federation.plans import START, read_plan, read_start
    from blindtune.federation.setup import save_model
    from blindtune.federation.simulation import simulated

    agreed = read_plan(plan)
    values = read_start(start or plan.with_name(START), agreed)
    render.make_directory(out)
    makers = _makers(agreed, data, labels, by, weights, out)
    books = _books(agreed, ledgers, makers)
    learners = {
        site: _learner(make, agreed, out / "features" / site, out / "sites" / site / "blind")
        for site, make in makers.items()
    }
    policy = policy_of(agreed, len(learners), fewest, colluding)
    shown = Tally(json_)
    shown.where({"plan": agreed.digest, "sites": sorted(learners)})
    before = time.monotonic()
    with simulated(agreed, values, learners, out, policy, books) as coordinator:
        for done in coordinator.run():
            now = time.monotonic()
            missing = sorted(learners.keys() - done.sites - done.excluded.keys())
            shown.round(done, now - before, 0, 0, missing)
            before = now
        coordinator.publish()
    save_model(agreed, coordinator.values, coordinator.totals, out / "model")
    shown.say(f"all rounds are done; the model is in {out / 'model'}")


def search(
    plan: PlanFile,
    data: Sites,
    out: Out,
    space: Annotated[Path, typer.Option(help="JSON: fields of the plan's local part, and what they may be.")],
    trials: TrialCount = 20,
    objective: Objective = "mcc",
    by: By = None,
    labels: Labels = None,
    start: StartFile = None,
    weights: Weights = None,
    ledgers: Ledgers = None,
    fewest: Fewest = 3,
    colluding: Colluding = None,
    json_: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON document a line: first where, then trials, the best."),
    ] = False,
) -> None:
    """Search for a plan's hyper-parameters: each trial is a simulated federation, judged on validation cases.

    Ends in OUT/best/plan.json, a plan for run or serve. The same command goes on with a search that was
    stopped. A private search spends budget: it says how much before it begins, and does not begin beyond it.
    """
    from blindtune.federation.plans import START, read_bytes, read_plan, read_start
    from blindtune.federation.search import SearchPlan
    from blindtune.federation.simulation import simulated_search

    base = read_plan(plan)
    agreed = SearchPlan.of(base, read_bytes(space), trials, objective)
    values = read_start(start or plan.with_name(START), base)
    render.make_directory(out)
    makers = _makers(base, data, labels, by, weights, out)
    books = _books(base, ledgers, makers)
    policy = policy_of(base, len(makers), fewest, colluding)

    def maker(site: str) -> Callable[[Agreement, Path], Learner]:
        return lambda trial, place: _learner(makers[site], trial, place, place / "blind")

    with simulated_search(agreed, values, {s: maker(s) for s in makers}, out, policy, books) as (
        found,
        accounts,
        run_trials,
    ):
        told = Trials(agreed, found, json_)
        told.where(sorted(makers), accounts)
        with render.progress(json_) as shown:
            task = shown.add_task("trials", total=trials * base.rounds)
            done = trials - found.left

            def on_round(number: int, round_: Any) -> None:
                at = done * base.rounds + round_.number + 1
                shown.update(task, completed=at, description=f"trial {number}, round {round_.number}")

            for trial in run_trials(on_round):
                done += 1
                told.trial(trial)
                shown.update(task, completed=done * base.rounds)
        told.end(values, out)


def _makers(
    agreed: Agreement, data: Path, labels: Path | None, by: str | None, weights: Path | None, out: Path
) -> dict[str, Maker]:
    """Each site's data, from a folder of sites or from one folder that is split by a column."""
    from blindtune.errors import InputError
    from blindtune.federation.setup import open_data
    from blindtune.federation.simulation import split_labels

    places: dict[str, tuple[Path, Path | None]]
    if by:
        tables = split_labels(labels or data / "labels.csv", by, out / "tables")
        places = {site: (data, table) for site, table in tables.items()}
    else:
        found = sorted(data.iterdir()) if data.is_dir() else []
        places = {p.stem: (p, None) for p in found if p.is_dir() or p.suffix == ".npz"}
    if not places:
        raise InputError(
            "no sites here",
            where=data.name,
            remedy="Give each a folder or an .npz, or name a column by --by.",
        )
    with images() as on_image:
        return {
            site: open_data(
                agreed,
                place,
                labels=table,
                weights=weights,
                cache=out / "features" / site,
                on_image=on_image,
            )
            for site, (place, table) in places.items()
        }


def _learner(make: Maker, agreed: Agreement, place: Path, blind: Path) -> Learner:
    """A site's learner; blind rounds are computed here."""
    from blindtune.client.blind import HereProvider

    outsourced = agreed.model.kind == "head" and agreed.model.blind
    return make(agreed, place, (HereProvider(), blind) if outsourced else None)


def _books(agreed: Agreement, ledgers: Path | None, sites: dict[str, Maker]) -> dict[str, Path]:
    """Each site's ledger, for a private plan."""
    from blindtune.errors import InputError

    if agreed.privacy is None:
        return {}
    if ledgers is None:
        raise InputError(
            "a private plan needs every site's privacy ledger",
            where="--ledgers",
            remedy="Open one for each site with blindtune dp open FOLDER/SITE.ledger, and give the folder.",
        )
    return {site: ledgers / f"{site}.ledger" for site in sites}
