"""A hospital's study directory: what stays, what may leave, what came back.

    STUDY/private/   0700, never leaves: secret key, embeddings, whitening, rehearsal, settings
    STUDY/outbox/    the bundles ``keys`` and ``data``: everything that is uploaded
    STUDY/inbox/     the encrypted head as it came back
    STUDY/head/      the decrypted head; stays with the key owner
    STUDY/release/   the sanitised head, for others
    STUDY/report/    the evaluation

``private/study.json`` is written last: a directory without it is an unfinished study, which
``encrypt`` takes up again.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blindtune.client.settings import Settings
from blindtune.errors import BundleError, InputError
from blindtune.files import whole_file
from blindtune.imaging import Embeddings
from blindtune.models.heads import Start
from blindtune.models.rehearsal import Choice
from blindtune.models.whitening import Whitening

Floats = NDArray[np.float64]
MAX_SETTINGS_BYTES = 1 << 20
AGAIN = "Restore the outbox, or encrypt the study again."


@dataclass(frozen=True)
class StudyDirectory:
    """Paths and private files of a study."""

    root: Path

    @property
    def private(self) -> Path:
        """What never leaves."""
        return self.root / "private"

    @property
    def key_file(self) -> Path:
        """The study's own secret key, unless another file is named."""
        return self.private / "secret.key"

    @property
    def keys_bundle(self) -> Path:
        """Evaluation keys."""
        return self.root / "outbox" / "keys"

    @property
    def data_bundle(self) -> Path:
        """Encrypted data."""
        return self.root / "outbox" / "data"

    @property
    def encrypted_head(self) -> Path:
        """The bundle that came back."""
        return self.root / "inbox" / "head"

    @property
    def head(self) -> Path:
        """The decrypted head."""
        return self.root / "head"

    @property
    def releases(self) -> Path:
        """The journal of what was released; part of what never leaves."""
        return self.private / "releases"

    @property
    def released(self) -> Path:
        """The sanitised head, which may leave."""
        return self.root / "release"

    @property
    def report(self) -> Path:
        """The evaluation."""
        return self.root / "report"

    @property
    def complete(self) -> bool:
        """Whether ``encrypt`` finished."""
        return (self.private / "study.json").is_file()

    def check(self) -> None:
        """Check that a study can be made here, or an unfinished one taken up; changes nothing.

        Raises:
            InputError: a finished study, or something else.
        """
        if self.complete:
            raise InputError("a finished study is here", where=self.root.name, remedy="Choose another --out.")
        known = {"private", "outbox"}
        if self.root.exists() and (not self.root.is_dir() or {p.name for p in self.root.iterdir()} - known):
            raise InputError(
                "the directory holds other things", where=self.root.name, remedy="Choose an empty --out."
            )

    def create(self) -> None:
        """Make the directory, or take up an unfinished study.

        Raises:
            InputError: as :meth:`check`, or it cannot be written.
        """
        try:
            self.check()
            self.private.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(self.private, 0o700)
            shutil.rmtree(self.root / "outbox", ignore_errors=True)
        except OSError as error:
            raise InputError(
                f"the study directory cannot be written ({error.strerror})",
                where=self.root.name,
                remedy="Choose a directory that you may write to.",
            ) from error

    def check_outbox(self, settings: Settings) -> None:
        """Check that the bundles are whole and of this study, before anything is sent.

        Raises:
            BundleError: altered, truncated, of another study or under another key.
        """
        from blindtune.wire.bundle import Bundle

        for path, kind in ((self.keys_bundle, "keys"), (self.data_bundle, "data")):
            bundle = Bundle(path, insecure=settings.security == "insecure")
            m = bundle.manifest
            if m.key != settings.key:
                raise BundleError("it is under another key than the study's", where=path.name, remedy=AGAIN)
            if (m.kind, m.study, m.member) != (kind, settings.study, settings.member):
                raise BundleError("it belongs to another study", where=path.name, remedy=AGAIN)
            bundle.verify()

    def discard(self, *, own_key: bool) -> None:
        """After a failure: an unfinished study keeps its features and nothing else.

        Args:
            own_key: the study's key was made for it, so that it goes too.
        """
        if self.complete:
            return
        shutil.rmtree(self.root / "outbox", ignore_errors=True)
        saved = [self.private / "whitening.safetensors", self.private / "embeddings.npz", self.releases]
        for path in (*saved, *self.private.glob("*.partial"), *([self.key_file] if own_key else [])):
            with suppress(OSError):
                path.unlink()
        for path in (self.private / "features", self.private):
            # Only what is empty goes.
            with suppress(OSError):
                path.rmdir()

    def save(
        self, settings: Settings, choice: Choice, data: Embeddings, expected: Floats | None = None
    ) -> None:
        """Write the private files, the settings last.

        Args:
            expected: the weights without noise, where a release will be held to them.
        """
        from safetensors.numpy import save_file

        whitening, start = choice.whitening, choice.start
        tensors = {"mean": whitening.mean, "transform": whitening.transform}
        tensors["rehearsed"] = choice.rehearsal.weights
        if expected is not None:
            tensors["expected"] = expected
        if start is not None:
            tensors |= {"start_weight": start.weight, "start_bias": start.bias}
        tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        with whole_file(self.private / "whitening.safetensors") as path:
            save_file(tensors, path, {"epsilon": repr(whitening.epsilon), "owner": whitening.owner})
        with whole_file(self.private / "embeddings.npz") as path, open(path, "wb") as file:
            np.savez(
                file,
                embeddings=data.features,
                labels=data.labels,
                classes=np.array(data.classes),
                patients=np.array(data.patients),
                splits=data.splits,
            )
        with whole_file(self.private / "study.json") as path:
            path.write_text(json.dumps(asdict(settings), indent=1))

    def settings(self) -> Settings:
        """The private settings.

        Raises:
            InputError: no finished study here, or damaged settings.
        """
        path = self.private / "study.json"
        if not path.is_file():
            raise InputError(
                "no finished study here", where=self.root.name, remedy="Run blindtune encrypt first."
            )
        try:
            if path.stat().st_size > MAX_SETTINGS_BYTES:
                raise ValueError("too large")
            # Studies of earlier versions have no grid.
            found = {"grid": [], **json.loads(path.read_text())}
            for name in ("members", "classes", "notes", "grid"):
                found[name] = tuple(found[name])
            return Settings(**found)
        except (ValueError, TypeError, KeyError):
            raise self._damaged("study.json") from None

    def whitening(self) -> tuple[Whitening, Floats]:
        """The whitening, and the weights of the same steps in clear (columns, K)."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.private / "whitening.safetensors", "numpy") as file:
                meta = file.metadata()
                mean, transform = file.get_tensor("mean"), file.get_tensor("transform")
                rehearsed = file.get_tensor("rehearsed")
            return Whitening(mean, transform, float(meta["epsilon"]), meta["owner"]), rehearsed
        except (SafetensorError, OSError, KeyError, ValueError, TypeError):
            raise self._damaged("whitening.safetensors") from None

    def start(self) -> Start | None:
        """The head in clear that training started from, if it did not from zero."""
        found = self._optional("start_weight", "start_bias")
        return Start(*found) if found else None

    def expected(self) -> Floats | None:
        """The weights (columns, K) without noise, in a study that is planned for release."""
        found = self._optional("expected")
        return found[0] if found else None

    def _optional(self, *names: str) -> list[Floats] | None:
        """Tensors that some studies have."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.private / "whitening.safetensors", "numpy") as file:
                if names[0] not in file.keys():  # noqa: SIM118
                    return None
                return [file.get_tensor(name) for name in names]
        except (SafetensorError, OSError):
            raise self._damaged("whitening.safetensors") from None

    def embeddings(self) -> Embeddings:
        """The embeddings, labels, patients and splits."""
        from blindtune.imaging import load_embeddings

        return load_embeddings(self.private / "embeddings.npz")

    def _damaged(self, name: str) -> InputError:
        return InputError(
            "missing or damaged", where=f"private/{name}", remedy="Restore it, or encrypt the study again."
        )
