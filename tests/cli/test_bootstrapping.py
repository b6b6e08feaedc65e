"""More steps than levels under one owner's key: encrypted, uploaded, bootstrapped by a server, decrypted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blindtune.client.encrypt import encrypt_study, own_key
from blindtune.client.prepare import prepare
from blindtune.client.remote import Remote
from blindtune.client.study import StudyDirectory
from blindtune.depth import for_plan, schedule
from blindtune.he.openfhe.bootstrapping import LEFT, Bootstrapping
from blindtune.imaging import Embeddings, load_embeddings
from blindtune.models.heads import one_vs_rest
from blindtune.params import ParametersLiteral
from blindtune.wire.bundle import Bundle
from blindtune.wire.study import train_here
from tests.cli.conftest import TOKEN, Ran, spawn, write_embeddings
from tests.openfhe import needs_openfhe, why_not_openfhe

SERVER = """
import sys
from pathlib import Path
from blindtune.server.run import serve
ready = lambda port: print(f"http://127.0.0.1:{port}", flush=True)
serve(Path(sys.argv[1]), port=0, cores=1, log_level="error", insecure=True, ready=ready)
"""
LITERAL = Bootstrapping(1024, 6, 32, security=0)
"""Two steps of degree 3 from zero, or one from weights, and a bootstrap."""

PASSPHRASE = "a passphrase of the hospital"
Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process of its own that takes insecure parameters."""
    place = tmp_path_factory.mktemp("server") / "cloud"
    process = spawn(place, program=(sys.executable, "-c", SERVER), BLINDTUNE_TOKEN=TOKEN)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_embeddings(tmp_path / "rows.npz", rows=120, kinds=3)


def encrypted(data: Embeddings, study: StudyDirectory) -> None:
    """What ``blindtune encrypt --bootstrap`` does, at parameters that take no minutes."""
    head = one_vs_rest(degree=3, learning_rates=(4.0,) * 4)
    likely = ParametersLiteral(1024, LITERAL.levels, 51, 59, 60, security=0).checked()
    prepared = prepare(
        data,
        head=head,
        directions=[7],
        epsilons=[0.3],
        rates=[4.0],
        parameters=likely,
        refreshes=schedule(head.program, LITERAL.levels, LEFT),
    )
    assert prepared.plan.program.refreshes == (2, 3)
    literal = for_plan(LITERAL, prepared.plan, 1 << 30)
    key, planned = own_key(prepared, study, literal, PASSPHRASE)
    encrypt_study(planned, key, study)


@needs_openfhe
def test_whole_way(
    blindtune: Run, rows: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: hospitals calibrate with it")
    study = StudyDirectory(tmp_path / "study")
    encrypted(load_embeddings(rows), study)
    # As submit and fetch do, which take no insecure parameters.
    settings = study.settings()
    study.check_outbox(settings)
    with Remote(url, TOKEN, insecure=True) as remote:
        remote.submit([study.keys_bundle, study.data_bundle])
        remote.start(settings.study)
        remote.wait(settings.study)
        remote.fetch(settings.study, study.encrypted_head, key=settings.key)
    monkeypatch.setenv("BLINDTUNE_PASSPHRASE", PASSPHRASE)
    ran = blindtune("decrypt", study.root, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["deviation"] < 1e-2
    # Another process makes the very same head of the same ciphertexts.
    train_here(study.keys_bundle, [study.data_bundle], tmp_path / "again", insecure=True)
    heads = [Bundle(path, insecure=True) for path in (study.encrypted_head, tmp_path / "again")]
    found, again = (list(head.items("weights")) for head in heads)
    assert found == again
    blindtune("release", study.root).refused("release")
    # Such a key serves its own packing alone.
    blindtune("encrypt", rows, "--out", tmp_path / "other", "--key", study.key_file).refused("bootstraps")


@needs_openfhe
def test_keys_that_no_server_holds(blindtune: Run, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: hospitals calibrate with it")
    ran = blindtune("encrypt", rows, "--out", tmp_path / "study", "--bootstrap", "--steps", 12, "--memory", 2)
    ran.refused("keys to bootstrap with of", "do not fit")
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(not why_not_openfhe(), reason="OpenFHE is here")
def test_what_to_install(blindtune: Run, rows: Path, tmp_path: Path) -> None:
    ran = blindtune("encrypt", rows, "--out", tmp_path / "study", "--bootstrap", "--steps", 12)
    ran.refused("OpenFHE cannot be loaded", code=ran.code)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("other", [("--release",), ("--key", "secret.key")])
def test_what_does_not_go_together(
    blindtune: Run, rows: Path, tmp_path: Path, other: tuple[str, ...]
) -> None:
    blindtune("encrypt", rows, "--out", tmp_path / "study", "--bootstrap", *other).refused(other[0])
