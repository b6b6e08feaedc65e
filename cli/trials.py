"""What is told of a search while it runs: a JSON document a line, or a table at its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindtune.cli import render
from blindtune.cli.tally import Tally

if TYPE_CHECKING:
    from blindtune.federation.learner import Values
    from blindtune.federation.search import SearchPlan
    from blindtune.federation.trials import Search, Trial
    from blindtune.privacy.ledger import Ledger


class Trials:
    """What is told of a search: a JSON document a line, or a table at its end."""

    def __init__(self, plan: SearchPlan, found: Search, json_: bool) -> None:
        self._plan, self._found, self._json, self._said = plan, found, json_, Tally(False)

    def where(self, sites: list[str], ledgers: dict[str, Ledger], **more: object) -> None:
        """What will be done, and what it costs; refuses what no budget covers."""
        from blindtune.federation.spending import afford

        plan, found, told = self._plan, self._found, {}
        begun = found.begun
        for site, after in afford(plan, ledgers, found.left - len(begun), begun).items():
            ledger = ledgers[site]
            told[site] = {"budget": ledger.epsilon, "spent": ledger.spent_epsilon, "after": after.search}
            told[site] |= {"delta": ledger.delta, "with_training": after.training}
        where = {**more, "search": plan.digest, "sites": sites, "trials": plan.trials, "left": found.left}
        if self._json:
            self._line({**where, "privacy": told})
            return
        self._said.where(where)
        for site, cost in told.items():
            say_cost(self._said, site, cost["spent"], cost["budget"], cost["after"], cost["with_training"])

    def trial(self, trial: Trial) -> None:
        """A trial that is done."""
        if self._json:
            told = {"trial": trial.number, "values": trial.values, "score": trial.score}
            self._line({**told, "why": trial.why} if trial.why else told)
        elif trial.why:
            self._said.say(f"trial {trial.number} failed: {trial.why}")

    def end(self, start: Values, out: Path) -> None:
        """Write the plan with the best values, and tell of all trials.

        Raises:
            FederationError: all of them failed.
        """
        from blindtune.errors import FederationError
        from blindtune.federation.plans import PLAN, write_plan

        best = self._found.best
        if best is None:
            raise FederationError(
                "no trial could be finished", where="search", remedy="Search another space, elsewhere."
            )
        chosen, place = self._plan.best(best.values), out / "best"
        render.make_directory(place)
        write_plan(chosen, start, place)
        if self._json:
            told = {"best": best.number, "values": best.values, "score": best.score}
            self._line({**told, "plan": str(place / PLAN), "digest": chosen.digest})
            return
        from rich.console import Console
        from rich.table import Table

        names = list(self._plan.space)
        title = f"Trials, by {self._plan.objective} on validation cases"
        table = Table("trial", *names, "score", "", title=title, title_justify="left", title_style="bold")
        for trial in self._found.finished:
            cells = [
                f"{v:.4g}" if isinstance(v, float) else str(v)
                for v in (trial.values.get(n, "") for n in names)
            ]
            score = "failed" if trial.score is None else f"{trial.score:.4f}"
            table.add_row(str(trial.number), *cells, score, "best" if trial.number == best.number else "")
        Console(highlight=False).print(table)
        self._said.say(f"the plan with the best values is {place / PLAN}; train it with run, or serve")

    @staticmethod
    def _line(told: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def say_cost(said: Tally, site: str, spent: float, budget: float, after: float, training: float) -> None:
    """What a search costs a site's patients."""
    said.say(
        f"{site}: epsilon {spent:.3g} of {budget:g} is spent; {after:.3g} at most after the search, "
        f"{training:.3g} with a training like a trial"
    )
    if training > budget:
        said.say(f"{site}: the search leaves too little for that training")
