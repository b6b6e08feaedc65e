"""``blindtune audit report``: configuration, promises, assumptions and attacks on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json


def report(
    results: Annotated[
        list[Path] | None, typer.Argument(help="Files of attack results, or directories with them.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="The plan of federated rounds.")] = None,
    study: Annotated[Path | None, typer.Option(help="A study's directory, from blindtune encrypt.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="The site's privacy ledger.")] = None,
    delta: Annotated[float, typer.Option(help="Delta of the plan's epsilon.", min=1e-15, max=0.1)] = 1e-5,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Privacy report",
    out: Annotated[Path, typer.Option(help="Directory for privacy.html and privacy.json.")] = Path("privacy"),
    json_: Json = False,
) -> None:
    """Write a privacy report for a data-protection officer (HTML, JSON); no patient or picture is in it."""
    from datetime import datetime, timezone

    from blindtune.audit.privacy_report import PrivacyReport, collected
    from blindtune.client.study import StudyDirectory
    from blindtune.errors import InputError
    from blindtune.federation.plans import read_plan
    from blindtune.privacy.ledger import Ledger

    if not (results or plan or study):
        raise InputError(
            "nothing to report on", where="report", remedy="Name attack results, --plan or --study."
        )
    budget = None
    if ledger is not None:
        book = Ledger(ledger)
        budget = book.epsilon, book.delta, book.spent_epsilon
        book.close()
    found = PrivacyReport(
        title=title,
        date=datetime.now(timezone.utc).date().isoformat(),
        study=None if study is None else StudyDirectory(study).settings(),
        plan=None if plan is None else read_plan(plan),
        delta=delta,
        budget=budget,
        results=collected(results) if results else (),
    )
    json_path, html_path = found.write(out)
    if json_:
        print(json_path.read_text(), end="")
    else:
        render.console().print(f"written: {html_path} and {json_path}", soft_wrap=True)
