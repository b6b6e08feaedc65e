"""Everything once, as two machines: a hospital that keeps its key, a cloud that sees ciphertexts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

BACKBONE = "blindtune_deit_96"
PASSPHRASE = "a passphrase of the hospital"


@pytest.fixture(scope="module")
def site(scans, tmp_path_factory):
    """The hospital's disk; its class names are unlike anything that a program writes by itself."""
    directory = tmp_path_factory.mktemp("site")
    shutil.copytree(scans, directory / "scans")
    table = directory / "scans" / "labels.csv"
    text = table.read_text()
    for ours, theirs in (
        ("clear", "zz-clear"),
        ("diffuse-pattern", "zz-diffuse"),
        ("focal-opacity", "zz-focal"),
    ):
        text = text.replace(f",{ours},", f",{theirs},")
    table.write_text(text)
    return directory


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    return tmp_path_factory.mktemp("cloud") / "data"


@pytest.fixture(scope="module")
def answers():
    """What each command printed, for later tests."""
    return {}


@pytest.fixture
def document(blindtune, token, monkeypatch, answers):
    """Runs a command with --json and gives its one document on stdout."""
    monkeypatch.setenv("BLINDTUNE_PASSPHRASE", PASSPHRASE)

    def run(command: str, *args: object):
        ran = blindtune(command, *args, "--json")
        assert ran.code == 0, ran.err
        answers[command] = json.loads(ran.out)
        return answers[command]

    return run


def test_whole_way(document, serve, site, cloud, scans):
    study = site / "study"
    key = document("keygen", "--out", site / "keys")
    assert (key["security"], key["ring_degree"]) == ("128-bit", 16384)
    made = document(
        *("encrypt", site / "scans", "--out", study, "--backbone", BACKBONE),
        *("--key", key["file"], "--directions", 15, "--epsilon", 0.1, "--rate", 3),
    )
    assert (made["classes"], made["security"]) == ("zz-clear, zz-diffuse, zz-focal", "128-bit")
    assert not (study / "private" / "secret.key").exists()
    with serve(cloud) as server:
        sent = document("submit", study, "--server", server.url)
        assert sent["study"] == made["study"]
        now = document("status", study)
        assert now["state"] in ("queued", "running", "done")
        fetched = document("fetch", study)
        assert Path(fetched["encrypted_head"]).is_dir()
        done = document("status", study)
        assert (done["state"], done["progress"]["step"], done["progress"]["steps"]) == ("done", 3, 3)
    opened = document("decrypt", study, "--key", key["file"])
    assert opened["deviation"] < 0.01
    report = document("evaluate", study)
    assert {"encrypted", "same steps in clear", "converged plaintext"} <= set(json.dumps(report).split('"'))
    assert (study / "report" / "report.html").stat().st_size > 10_000
    predicted = document("predict", study / "head", site / "scans")
    assert len(predicted) == len(list(scans.glob("*.dcm")))
    assert {row["prediction"] for row in predicted} <= {"zz-clear", "zz-diffuse", "zz-focal"}
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-9 for row in predicted)


def test_cloud_holds_nothing_of_the_patients(site, cloud):
    from blindtune.client.keyfile import read_key
    from blindtune.imaging.formats import sniff_format

    file = site / "keys" / "secret.key"
    raw = read_key(file, PASSPHRASE).to_bytes()
    # Words of eight bytes or more: chance finds shorter ones among so many random bytes.
    stay = [b"blindtune-secret-key", b"zz-clear", b"zz-diffuse", b"zz-focal", b"SYN-0000-0003_1.dcm"]
    stay += [b"SYN-0000-0005", json.loads(file.read_text())["data"][:64].encode()]
    words = [*stay, raw[200:264], raw[-64:], PASSPHRASE.encode(), b"Synthetic^", b"labels.csv"]
    words.append(str(site).encode())
    private = site / "study" / "private"
    rows = np.load(private / "embeddings.npz")["embeddings"]
    words += [rows[0].tobytes()[:32], rows[-1].tobytes()[:32]]
    words += [path.read_bytes()[200:264] for path in sorted((site / "scans").glob("*.dcm"))[:3]]
    files = [path for path in cloud.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert sniff_format(path) is None
        assert [word for word in words if word in content] == [], path.name
    # The same search finds them where they are.
    there = b"".join(p.read_bytes() for p in site.rglob("*") if p.is_file() and "outbox" not in p.parts)
    assert all(word in there for word in stay)


def test_same_head_as_in_clear(site):
    from blindtune.client.decrypt import finish
    from blindtune.client.study import StudyDirectory
    from blindtune.models.linear import LinearHead

    directory = StudyDirectory(site / "study")
    _, rehearsed = directory.whitening()
    clear, _ = finish(directory, directory.settings(), rehearsed, "in clear")
    encrypted = LinearHead.load(directory.head)
    features = directory.embeddings().features
    here, there = encrypted.logits(features), clear.logits(features)
    np.testing.assert_allclose(here, there, atol=0.02 * np.abs(there).max())
    assert (here.argmax(1) == there.argmax(1)).mean() > 0.97


def test_head_is_the_classifier_of_a_timm_model(site, answers):
    import torch

    from blindtune.client.features import load_scan
    from blindtune.models import load_backbone
    from blindtune.models.linear import LinearHead, attach_head

    head = LinearHead.load(site / "study" / "head")
    backbone = load_backbone(BACKBONE)
    files = sorted((site / "scans").glob("*.dcm"))[:4]
    images = np.stack([load_scan(path, backbone.size) for path in files])
    wanted = head.logits(backbone.embed(images))
    model = attach_head(backbone.model, site / "study" / "head")
    with torch.inference_mode():
        grey = torch.from_numpy(images).unsqueeze(1)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
        found = model((grey - mean) / std).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())
    by_file = {row["file"]: row["prediction"] for row in answers["predict"]}
    assert [by_file[path.name] for path in files] == [head.classes[k] for k in found.argmax(1)]
