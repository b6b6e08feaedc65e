"""Studies: the bundles that make them, opened and completed; what comes of their training is kept beside.

Their parts are contents (:mod:`blindtune.server.contents`): what a tenant sent once is not sent again.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from blindtune.errors import BundleError, PlanError
from blindtune.server import audit
from blindtune.server.blobs import link
from blindtune.server.contents import Contents
from blindtune.server.database import Database, lock_tenant
from blindtune.server.jobs import check_idle
from blindtune.server.jobs import drop as drop_jobs
from blindtune.server.messages import drop as drop_messages
from blindtune.server.places import Place, touch
from blindtune.server.retention import lapsed
from blindtune.server.status import study_page, study_status
from blindtune.server.tables import bundles, parts, studies
from blindtune.server.tenants import check_room
from blindtune.wire.bundle import MANIFEST, PARTS, Bundle
from blindtune.wire.manifest import Manifest, Part, parse_manifest
from blindtune.wire.study import check_start, check_study


@dataclass(frozen=True)
class Made:
    """A study's manifests, checked against each other."""

    keys: Manifest
    data: list[Manifest]
    start: Manifest | None


class Studies:
    """The tables of studies, bundles and parts.

    Args:
        insecure: accept test parameters without a security level.
    """

    def __init__(self, database: Database, contents: Contents, *, insecure: bool = False) -> None:
        self._database, self._contents, self.insecure = database, contents, insecure

    # Bundles

    def open_bundle(self, tenant: str, manifest: Manifest) -> list[Part]:
        """Open a bundle, or go on with it; the parts still missing, each content once.

        Keys of a key whose evaluation keys the tenant sent before are taken from there: nothing is missing.

        Raises:
            BundleError: it does not belong to the study that its identifier names.
            PlanError: another bundle stands in its place already, or the study is queued or running.
            QuotaError: the tenant has no room for it.
        """
        header = _header(manifest)
        with self._database.transaction() as db:
            lock_tenant(db, tenant)
            known = self._header_of(db, tenant, manifest.study)
            if known is not None and known != header:
                raise BundleError(
                    "the study here has another key, other members, parameters or another program",
                    remedy="Encrypt with the study's key and plan, or delete the study here first.",
                )
            manifest = self._with_known_keys(db, tenant, manifest)
            text, place = manifest.model_dump_json(), Place.of(tenant, manifest)
            row = place.row(db)
            gone = []
            if row is None or row["manifest"] != text:
                check_room(db, tenant, len(text))
                if known is None:
                    _insert(db, tenant, manifest.study, header)
                replaced = self._replaced(db, place) if row is not None and row["complete"] else set()
                replaced |= place.remove(db)
                place.insert(db, manifest, text, complete=False)
                gone = self._contents.forget(db, tenant, replaced)
            complete = row is not None and row["manifest"] == text and row["complete"]
            missing = [] if complete else self._missing(db, place)
            if known is None:
                audit.append(db, "study.opened", f"{tenant}/{manifest.study}")
        self._contents.remove(tenant, gone)
        return missing

    def complete(self, tenant: str, study: str, kind: str, member: str) -> bool:
        """Call a bundle complete whose parts have all arrived; False if it was never opened.

        Raises:
            BundleError: a part is missing.
        """
        with self._database.transaction() as db:
            lock_tenant(db, tenant)
            place = Place(tenant, study, kind, member)
            row = place.row(db)
            if row is None:
                return False
            missing = [] if row["complete"] else self._missing(db, place)
            if missing:
                raise BundleError(
                    f"{len(missing)} parts have not arrived, such as {missing[0].name}",
                    remedy="Run submit again.",
                )
            db.execute(update(bundles).where(place.where).values(complete=True))
            touch(db, tenant, study)
            # A member's name is its tenant's business.
            audit.append(db, f"{kind}.uploaded", f"{tenant}/{study}")
        return True

    def made(self, db: Connection, tenant: str, study: str) -> Made:
        """A study's manifests, for whoever queues it in the same transaction.

        Raises:
            PlanError: something is missing, or they do not make one study.
        """
        header = json.loads(self._header_of(db, tenant, study) or '{"members": [], "program": {}}')
        query = select(bundles).where(
            bundles.c.tenant == tenant, bundles.c.study == study, bundles.c.complete
        )
        found = {(r["kind"], r["member"]): r["manifest"] for r in db.execute(query).mappings()}
        wanted = [(("data", m), m) for m in header["members"]] + [(("keys", ""), "the evaluation keys")]
        if header["program"].get("started"):
            wanted.append((("start", ""), "the weights to start from"))
        missing = [name for key, name in wanted if key not in found]
        if missing:
            named = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
            raise PlanError(f"not uploaded yet: {named}", remedy="Submit what is missing, then start.")
        read = {key: parse_manifest(found[key], insecure=self.insecure) for key, _ in wanted}
        made = Made(read["keys", ""], [read["data", m] for m in header["members"]], read.get(("start", "")))
        try:
            check_study(made.keys, made.data)
            check_start(made.keys, made.start)
        except BundleError as error:
            raise PlanError(error.what, remedy=error.remedy) from error
        return made

    def bundles(self, tenant: str, study: str, directory: Path) -> tuple[Bundle, list[Bundle], Bundle | None]:
        """A study's keys, its members' data and its weights to start from, laid out for a training.

        Args:
            directory: empty; the parts get names there, without being copied where that can be.

        Raises:
            PlanError: see :meth:`made`.
            OSError: the storage failed.
        """
        with self._database.reading() as db:
            made = self.made(db, tenant, study)
        keys = self._laid_out(tenant, made.keys, directory / "keys")
        data = [self._laid_out(tenant, m, directory / "data" / m.member) for m in made.data]
        start = self._laid_out(tenant, made.start, directory / "start") if made.start else None
        return keys, data, start

    # Heads

    def put_head(self, db: Connection, tenant: str, study: str, manifest: Manifest) -> None:
        """Keep a trained head's manifest, in the transaction that calls its job done.

        The contents of its parts are kept already.
        """
        place = Place(tenant, study, "head", "")
        place.remove(db)
        place.insert(db, manifest, manifest.model_dump_json(), complete=True)

    def head(self, tenant: str, study: str) -> str | None:
        """The manifest of a study's head, as JSON; None before it is trained."""
        with self._database.reading() as db:
            row = Place(tenant, study, "head", "").row(db)
        return None if row is None else str(row["manifest"])

    def head_part(self, tenant: str, study: str, name: str) -> Part | None:
        """What a part of a study's head is; None if there is none."""
        place = Place(tenant, study, "head", "")
        with self._database.reading() as db:
            row = db.execute(select(parts).where(place.parts, parts.c.name == name)).mappings().first()
        return None if row is None else Part(name=name, sha256=row["sha256"], size=row["size"])

    # Studies

    def status(self, tenant: str, study: str) -> dict[str, Any] | None:
        """A study's state for the outside; None if the tenant has none such."""
        with self._database.reading() as db:
            header = self._header_of(db, tenant, study)
            return None if header is None else study_status(db, tenant, study)

    def page(
        self, tenant: str | None, after: tuple[str, str] | None, count: int
    ) -> list[tuple[str, dict[str, Any]]]:
        """See :func:`~blindtune.server.status.study_page`."""
        with self._database.reading() as db:
            return study_page(db, tenant, after, count)

    def delete(self, tenant: str, study: str) -> bool:
        """Forget a study and its messages, and remove everything kept for it alone; False if there is none.

        Raises:
            PlanError: it is queued or running.
        """
        with self._database.freeing():
            with self._database.transaction() as db:
                lock_tenant(db, tenant)
                check_idle(db, tenant, study)
                named = drop_messages(db, tenant, study)
                if not named and self._header_of(db, tenant, study) is None:
                    return False
                mine = (parts.c.tenant == tenant, parts.c.study == study)
                named |= set(db.execute(select(parts.c.sha256).where(*mine)).scalars())
                named |= drop_jobs(db, tenant, study)
                db.execute(delete(studies).where(studies.c.tenant == tenant, studies.c.id == study))
                gone = self._contents.forget(db, tenant, named)
                audit.append(db, "study.deleted", f"{tenant}/{study}")
            self._contents.remove(tenant, gone)
        return True

    def sweep(self, keep_days: float | None) -> None:
        """Delete studies that nothing was done with for so long."""
        if keep_days is None:
            return
        with self._database.reading() as db:
            found = lapsed(db, keep_days)
        for tenant, study in found:
            self.delete(tenant, study)

    # Below

    def _header_of(self, db: Connection, tenant: str, study: str) -> str | None:
        query = select(studies.c.header).where(studies.c.tenant == tenant, studies.c.id == study)
        found: str | None = db.execute(query).scalar()
        return found

    def _missing(self, db: Connection, place: Place) -> list[Part]:
        rows = db.execute(select(parts).where(place.parts).order_by(parts.c.name)).mappings().all()
        wanted = {r["sha256"]: Part(name=r["name"], sha256=r["sha256"], size=r["size"]) for r in rows}
        here = self._contents.here(db, place.tenant, wanted)
        return [part for sha256, part in wanted.items() if sha256 not in here]

    def _with_known_keys(self, db: Connection, tenant: str, manifest: Manifest) -> Manifest:
        """The manifest, with the contents of evaluation keys that the tenant sent before.

        All evaluation keys of one secret key do the same, however they were drawn.
        """
        if manifest.kind != "keys":
            return manifest
        query = (
            select(bundles.c.manifest)
            .where(bundles.c.tenant == tenant, bundles.c.kind == "keys", bundles.c.complete)
            .where(bundles.c.manifest.contains(manifest.key))
            # This study's own first: opened again, it stays what it is.
            .order_by((bundles.c.study == manifest.study).desc(), bundles.c.created)
        )
        for text in db.execute(query).scalars():
            known = parse_manifest(text, insecure=True)
            if (known.parameters, known.keys) == (manifest.parameters, manifest.keys):
                return manifest.model_copy(update={"parts": known.parts})
        return manifest

    def _replaced(self, db: Connection, place: Place) -> set[str]:
        """What goes with a complete bundle when another takes its place; only weights to start from may."""
        if place.kind != "start":
            raise PlanError(
                f"another bundle of {place.kind} is here already",
                remedy="Delete the study here to upload it anew.",
            )
        check_idle(db, place.tenant, place.study)
        # The study is trained anew.
        return drop_jobs(db, place.tenant, place.study) | Place(place.tenant, place.study, "head", "").remove(
            db
        )

    def _laid_out(self, tenant: str, manifest: Manifest, directory: Path) -> Bundle:
        (directory / PARTS).mkdir(parents=True)
        for part in manifest.parts:
            link(self._contents.path(tenant, part.sha256), directory / PARTS / part.name)
        (directory / MANIFEST).write_text(manifest.model_dump_json())
        return Bundle(directory, insecure=self.insecure)


def _insert(db: Connection, tenant: str, study: str, header: str) -> None:
    now = time.time()
    db.execute(insert(studies).values(tenant=tenant, id=study, header=header, created=now, changed=now))


def _header(manifest: Manifest) -> str:
    """What all bundles of a study share."""
    shared = manifest.model_dump(include={"key", "members", "engine", "parameters", "program"})
    return json.dumps(shared, sort_keys=True)
