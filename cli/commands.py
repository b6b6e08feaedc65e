"""All commands of the program."""

from __future__ import annotations

import typer

from blindtune.cli import (
    audit,
    audit_log,
    bench,
    cloud,
    compare,
    demo,
    embedding,
    encryption,
    exchange,
    federate,
    hospital,
    inversion,
    privacy,
    privacy_report,
    results,
    study,
    tokens,
    ways,
    worker,
)

app = typer.Typer(
    name="blindtune",
    help="Train medical-image classifier heads on data that the training machine never sees.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    hospital.keygen,
    hospital.plan,
    ways.ways,
    encryption.encrypt,
    cloud.serve,
    worker.worker,
    bench.bench,
    exchange.submit,
    exchange.status,
    exchange.fetch,
    results.decrypt,
    results.release,
    results.evaluate,
    results.predict,
    compare.compare,
    demo.demo,
):
    app.command()(command)
app.add_typer(privacy.app, name="dp")
app.add_typer(federate.app, name="federate")
app.add_typer(study.app, name="study")
audit.app.command()(inversion.inversion)
audit.app.command()(embedding.embedding)
audit.app.command()(privacy_report.report)
app.add_typer(audit.app, name="audit")
app.add_typer(audit_log.app, name="audit-log")
app.add_typer(tokens.app, name="tokens")
