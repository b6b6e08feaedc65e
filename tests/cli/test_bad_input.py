"""Bad input: one line on stderr, exit code 2, and the disk as it was."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

EMBEDDED = "blindtune_deit_96"
TOKEN = "a token for these tests only"


@pytest.fixture
def cohort(scans, tmp_path):
    """A copy of the scans to damage."""
    return Path(shutil.copytree(scans, tmp_path / "input" / "scans"))


def relabel(cohort: Path, change) -> None:
    """Rewrite the labels table."""
    with open(cohort / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows)
    with open(cohort / "labels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def edit_json(path: Path, change) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


class TestScans:
    def test_corrupt_dicom(self, blindtune, cohort, tmp_path, tree):
        broken = cohort / "SYN-0000-0003_1.dcm"
        broken.write_bytes(broken.read_bytes()[:3000])
        before = tree(tmp_path / "input")
        ran = blindtune("encrypt", cohort, "--out", tmp_path / "study", "--backbone", EMBEDDED)
        ran.refused(broken.name)
        assert tree(tmp_path / "input") == before
        assert not (tmp_path / "study").exists()

    def test_label_without_a_file(self, blindtune, cohort, tmp_path):
        (cohort / "SYN-0000-0003_1.dcm").unlink()
        ran = blindtune("encrypt", cohort, "--out", tmp_path / "study", "--backbone", EMBEDDED)
        ran.refused("a label without a file", "SYN-0000-0003_1.dcm")
        assert not (tmp_path / "study").exists()

    def test_one_class_only(self, blindtune, cohort, tmp_path):
        relabel(cohort, lambda rows: [{**row, "label": "clear"} for row in rows])
        ran = blindtune("encrypt", cohort, "--out", tmp_path / "study", "--backbone", EMBEDDED)
        ran.refused("only one class")
        assert not (tmp_path / "study").exists()

    def test_no_labels_at_all(self, blindtune, cohort, tmp_path):
        (cohort / "labels.csv").unlink()
        blindtune("encrypt", cohort, "--out", tmp_path / "study").refused("scans without labels")

    def test_weights_that_are_nowhere(self, subprocess_blindtune, cohort, tmp_path):
        # Asks the hub's client, which reads its settings once: in a process of its own.
        ran = subprocess_blindtune(
            "encrypt", cohort, "--out", tmp_path / "study", HF_HOME=str(tmp_path / "no-hub")
        )
        ran.refused("deit_tiny_patch16_224", "weights are not in the cache", "--weights PATH")
        assert not (tmp_path / "study").exists()

    def test_unknown_backbone(self, blindtune, cohort, tmp_path):
        ran = blindtune("encrypt", cohort, "--out", tmp_path / "study", "--backbone", "deit_tiny")
        ran.refused("deit_tiny: timm knows no such model")
        assert not (tmp_path / "study").exists()

    def test_weights_of_another_model(self, blindtune, cohort, tmp_path):
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
        ran = blindtune(
            *("encrypt", cohort, "--out", tmp_path / "study", "--backbone", EMBEDDED),
            *("--weights", tmp_path / "other.safetensors"),
        )
        ran.refused("other.safetensors")
        assert not (tmp_path / "study").exists()

    @pytest.mark.parametrize("scans_", ["missing", "empty"])
    def test_no_scans(self, blindtune, tmp_path, scans_):
        (tmp_path / "empty").mkdir()
        blindtune("encrypt", tmp_path / scans_, "--out", tmp_path / "study").refused(scans_)
        assert not (tmp_path / "study").exists()


class TestEmbeddings:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, blindtune, make_embeddings, tmp_path, value):
        features = np.ones((60, 16), np.float32)
        features[7, 3] = value
        data = make_embeddings(tmp_path / "bad.npz", embeddings=features)
        for command in (["plan", data], ["encrypt", data, "--out", tmp_path / "study"]):
            blindtune(*command).refused("bad.npz: NaN or infinity in embeddings")
        assert [p.name for p in tmp_path.iterdir()] == ["bad.npz"]

    def test_one_class_only(self, blindtune, make_embeddings, tmp_path):
        data = make_embeddings(tmp_path / "bad.npz", labels=np.zeros(60, int), classes=None)
        blindtune("encrypt", data, "--out", tmp_path / "study").refused("only one class")
        assert not (tmp_path / "study").exists()

    def test_constant_features(self, blindtune, make_embeddings, tmp_path):
        data = make_embeddings(tmp_path / "bad.npz", embeddings=np.ones((60, 16), np.float32))
        ran = blindtune("encrypt", data, "--out", tmp_path / "study", "--steps", 1)
        ran.refused("the features span fewer than 15 directions")
        assert not (tmp_path / "study").exists()

    @pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 broken"])
    def test_not_an_archive(self, blindtune, tmp_path, content):
        (tmp_path / "bad.npz").write_bytes(content)
        ran = blindtune("encrypt", tmp_path / "bad.npz", "--out", tmp_path / "study")
        ran.refused("bad.npz: not a readable .npz file")

    def test_few_rows(self, blindtune, make_embeddings, tmp_path):
        data = make_embeddings(tmp_path / "few.npz", rows=12)
        blindtune("encrypt", data, "--out", tmp_path / "study").refused("training", "validation rows")
        assert not (tmp_path / "study").exists()


class TestPlans:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--rows", 5_000_000], ["5000000 rows need at least", "GiB on the server", "--memory"]),
            (["--steps", 9, "--memory", 4], ["GiB on the server, the limit is 4.0 GiB"]),
            (["--steps", 32], ["no ring holds", "128-bit", "fewer steps"]),
            (["--steps", 9, "--security", 256, "--degree", 7, "--memory", 999], ["no ring holds", "256-bit"]),
            (["--security", 64], ["no security level 64", "128, 192 or 256"]),
            (["--security", 0], ["no security level 0"]),
            (["--degree", 4], ["degree 4", "1, 3, 5 or 7"]),
            (["--head", "forest"], ["no head named forest", "ridge"]),
            (["--head", "softmax"], ["a softmax head for two classes", "--head logistic"]),
            (["--lanes", 3], ["powers of two"]),
            (["--lanes", 0], ["--lanes", "blindtune plan --help"]),
            (["--steps", 0], ["--steps", "blindtune plan --help"]),
            (["--memory", "nan"], ["--memory"]),
            (["--features", "many"], ["--features"]),
            (["--nonsense"], ["--nonsense"]),
        ],
    )
    def test_refused(self, blindtune, options, words):
        blindtune("plan", *options).refused(*words)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--memory", 0.2, "--steps", 1], ["42 rows need at least", "the limit is 0.2 GiB"]),
            (["--security", 64], ["no security level 64"]),
            (["--steps", 32, "--rate", 0.1], ["no ring holds"]),
            (["--rate", 1000], ["leaves the polynomial's interval in step 2", "Lower the learning rate"]),
            (["--rate", -1], ["--rate"]),
            (["--epsilon", "nan"], ["--epsilon"]),
            (["--directions", 17], ["17 directions of 16 features"]),
            (["--member", "../south"], ["--member: not a member name"]),
        ],
    )
    def test_nothing_is_encrypted(self, blindtune, embeddings, tmp_path, options, words):
        blindtune("encrypt", embeddings, "--out", tmp_path / "study", *options).refused(*words)
        assert list(tmp_path.iterdir()) == []

    def test_no_command(self, blindtune):
        blindtune("enkrypt").refused("No such command", "blindtune --help")

    def test_missing_arguments(self, blindtune):
        blindtune("encrypt").refused("blindtune encrypt --help")


class TestPlaces:
    def test_finished_study_is_never_replaced(self, blindtune, embeddings, study, tree):
        before = tree(study)
        blindtune("encrypt", embeddings, "--out", study).refused("a finished study is here")
        assert tree(study) == before

    def test_other_things_are_never_replaced(self, blindtune, embeddings, tmp_path, tree):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("years of work")
        before = tree(tmp_path)
        for command in (["encrypt", embeddings], ["demo"]):
            blindtune(*command, "--out", tmp_path / "out").refused("out")
        assert tree(tmp_path) == before

    def test_a_file_in_the_way(self, blindtune, embeddings, tmp_path, tree):
        (tmp_path / "out").write_text("a file")
        before = tree(tmp_path)
        blindtune("encrypt", embeddings, "--out", tmp_path / "out").refused("out")
        blindtune("encrypt", embeddings, "--out", tmp_path / "out" / "study").refused("study")
        blindtune("keygen", "--out", tmp_path / "out", "--steps", 1).refused("out")
        assert tree(tmp_path) == before

    def test_unwritable_directory(self, blindtune, embeddings, study):
        # Root may write anywhere but here.
        place = Path("/proc/sys/blindtune")
        blindtune("encrypt", embeddings, "--out", place, "--steps", 1).refused("cannot be written")
        blindtune("keygen", "--out", place, "--steps", 1).refused("cannot be made")
        blindtune("serve", "--data-dir", place).refused()

    @pytest.mark.parametrize("command", ["submit", "status", "fetch", "decrypt", "evaluate"])
    def test_no_study(self, blindtune, tmp_path, command):
        blindtune(command, tmp_path / "nowhere").refused("no finished study here", "blindtune encrypt")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("content", ["", "{}", "[1]", '{"study": 1, "members": 3}'])
    def test_damaged_settings(self, blindtune, study, content):
        (study / "private" / "study.json").write_text(content)
        blindtune("decrypt", study).refused("private/study.json: missing or damaged")

    def test_steps_out_of_order(self, blindtune, study, scans):
        blindtune("decrypt", study).refused("blindtune fetch")
        blindtune("evaluate", study).refused("blindtune decrypt")
        blindtune("predict", study / "head", scans).refused("blindtune decrypt")


class TestKeys:
    @pytest.fixture
    def key(self, blindtune, tmp_path, monkeypatch):
        monkeypatch.setenv("BLINDTUNE_PASSPHRASE", "correct horse")
        assert blindtune("keygen", "--out", tmp_path / "keys", "--steps", 1).code == 0
        return tmp_path / "keys" / "secret.key"

    def encrypt(self, blindtune, embeddings, tmp_path, key):
        return blindtune("encrypt", embeddings, "--out", tmp_path / "study", "--key", key, "--steps", 1)

    def test_wrong_passphrase(self, blindtune, embeddings, tmp_path, key, monkeypatch):
        monkeypatch.setenv("BLINDTUNE_PASSPHRASE", "battery staple")
        self.encrypt(blindtune, embeddings, tmp_path, key).refused("secret.key: wrong passphrase")
        assert not (tmp_path / "study").exists()

    def test_no_passphrase(self, subprocess_blindtune, embeddings, tmp_path, key):
        ran = self.encrypt(subprocess_blindtune, embeddings, tmp_path, key)
        ran.refused("the key needs a passphrase", "BLINDTUNE_PASSPHRASE")

    def test_readable_by_others(self, blindtune, embeddings, tmp_path, key):
        os.chmod(key, 0o640)
        self.encrypt(blindtune, embeddings, tmp_path, key).refused("others can read the key", "chmod 600")
        assert not (tmp_path / "study").exists()

    def test_never_replaced(self, blindtune, tmp_path, key, tree):
        before = tree(tmp_path)
        blindtune("keygen", "--out", key.parent, "--steps", 1).refused("a key exists here already")
        assert tree(tmp_path) == before

    def test_too_few_levels(self, blindtune, embeddings, tmp_path, key):
        ran = blindtune("encrypt", embeddings, "--out", tmp_path / "study", "--key", key, "--steps", 2)
        ran.refused("need 6 levels, the key has 1")
        assert key.is_file()
        assert not (tmp_path / "study").exists()

    def test_damaged(self, blindtune, embeddings, tmp_path, key):
        key.write_bytes(key.read_bytes()[:-100])
        self.encrypt(blindtune, embeddings, tmp_path, key).refused("secret.key")
        assert not (tmp_path / "study").exists()

    def test_given_key_survives_a_failure(self, blindtune, embeddings, tmp_path, key, monkeypatch):
        from blindtune.client.study import StudyDirectory
        from blindtune.errors import InputError

        def fail(*_):
            raise InputError("the disk is full")

        monkeypatch.setattr(StudyDirectory, "save", fail)
        self.encrypt(blindtune, embeddings, tmp_path, key).refused("the disk is full")
        assert key.is_file()
        assert not (tmp_path / "study").exists()


@pytest.mark.usefixtures("token")
class TestBundles:
    """Refused before anything is sent: the server's directory stays as it was."""

    @pytest.fixture
    def submit(self, blindtune, study, server, tree):
        def run(*words):
            before = tree(study), sorted((server.data / "studies").glob("*"))
            blindtune("submit", study, "--server", server.url, "--no-start").refused(*words)
            assert (tree(study), sorted((server.data / "studies").glob("*"))) == before

        return run

    def test_truncated_part(self, submit, study):
        part = study / "outbox" / "data" / "parts" / "data-0-0"
        part.write_bytes(part.read_bytes()[:-1000])
        submit("part data-0-0 is", "bytes instead of")

    def test_missing_part(self, submit, study):
        (study / "outbox" / "keys" / "parts" / "galois").unlink()
        submit("part galois is missing")

    def test_secret_key_inside(self, submit, study):
        shutil.copy(study / "private" / "secret.key", study / "outbox" / "data" / "parts" / "notes")
        submit("the bundle holds a secret key", "Take it out")

    def test_anything_else_inside(self, submit, study):
        (study / "outbox" / "data" / "labels.csv").write_text("file,label\n")
        submit("a bundle holds manifest.json and parts/, nothing else")

    def test_link_inside(self, submit, study):
        part = study / "outbox" / "data" / "parts" / "data-0-0"
        shutil.move(part, study / "private" / "data-0-0")
        part.symlink_to(study / "private" / "data-0-0")
        submit("a link inside a bundle")

    def test_parameters_over_the_table(self, submit, study):
        from blindtune.params import ParametersLiteral

        p = ParametersLiteral(8192, 6, security=0).checked()

        def change(manifest):
            manifest["parameters"].update(primes=list(p.primes), scale_bits=p.scale_bits)

        edit_json(study / "outbox" / "data" / "manifest.json", change)
        submit("is not 128-bit secure", "at most 214 bits")

    def test_insecure_parameters(self, submit, study):
        def change(manifest):
            manifest["parameters"]["security"] = 0

        edit_json(study / "outbox" / "keys" / "manifest.json", change)
        submit("insecure test parameters")

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "data"}', "{}" + " " * (17 << 20)])
    def test_no_manifest(self, submit, study, text):
        (study / "outbox" / "data" / "manifest.json").write_text(text)
        submit("manifest")

    def test_flipped_byte(self, submit, study):
        part = study / "outbox" / "data" / "parts" / "residual-0-0-0"
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
        submit("part residual-0-0-0 was altered")

    @pytest.mark.parametrize("bundle", ["keys", "data"])
    def test_bundle_of_another_study(self, submit, study, other, bundle):
        shutil.rmtree(study / "outbox" / bundle)
        shutil.copytree(other / "outbox" / bundle, study / "outbox" / bundle)
        submit(f"{bundle}: it is under another key than the study's")

    def test_bundle_of_another_study_under_the_same_key(self, submit, study, other):
        shutil.rmtree(study / "outbox" / "data")
        shutil.copytree(other / "outbox" / "data", study / "outbox" / "data")
        key = json.loads((study / "private" / "study.json").read_text())["key"]
        edit_json(study / "outbox" / "data" / "manifest.json", lambda m: m.update(key=key))
        submit("data: it belongs to another study")

    def test_server_refuses_data_under_another_key(self, blindtune, study, other, server):
        # The hospital's own check is told that all is well.
        mine = json.loads((other / "private" / "study.json").read_text())
        edit_json(study / "private" / "study.json", lambda s: s.update(study=mine["study"], key=mine["key"]))
        edit_json(study / "outbox" / "data" / "manifest.json", lambda m: m.update(study=mine["study"]))
        shutil.rmtree(study / "outbox" / "keys")
        shutil.copytree(other / "outbox" / "keys", study / "outbox" / "keys")
        blindtune("submit", study, "--server", server.url).refused("data: it is under another key")
        from blindtune.client.remote import Remote
        from blindtune.errors import RemoteError

        bundles = [study / "outbox" / "keys", study / "outbox" / "data"]
        with Remote(server.url, TOKEN) as remote, pytest.raises(RemoteError, match="another key"):
            remote.submit(bundles)


class TestHeads:
    def test_key_of_another_study(self, blindtune, trained, other, tree):
        before = tree(trained)
        ran = blindtune("decrypt", trained, "--key", other / "private" / "secret.key")
        ran.refused("this key did not encrypt the study")
        assert tree(trained) == before

    def test_truncated(self, blindtune, trained, tree):
        part = trained / "inbox" / "head" / "parts" / "weights"
        part.write_bytes(part.read_bytes()[:-7])
        before = tree(trained)
        blindtune("decrypt", trained).refused("part weights is", "bytes instead of")
        assert tree(trained) == before

    def test_flipped_byte(self, blindtune, trained, tree):
        part = trained / "inbox" / "head" / "parts" / "weights"
        data = bytearray(part.read_bytes())
        data[1000] ^= 4
        part.write_bytes(data)
        before = tree(trained)
        blindtune("decrypt", trained).refused("part weights was altered")
        assert tree(trained) == before

    def test_prediction_with_ready_embeddings(self, blindtune, trained, scans):
        assert blindtune("decrypt", trained).code == 0
        blindtune("predict", trained / "head", scans).refused("no backbone is known", ".npz")

    def test_other_rows_than_the_studys_own(self, blindtune, study, embeddings):
        blindtune("evaluate", study, "--embeddings", embeddings).refused("the study has its own embeddings")

    def test_damaged_head(self, blindtune, trained, scans):
        assert blindtune("decrypt", trained).code == 0
        (trained / "head" / "head.safetensors").write_bytes(b"")
        blindtune("predict", trained / "head", scans).refused("the head is damaged")
        blindtune("evaluate", trained).refused("the head is damaged")

    def test_embeddings_that_are_gone(self, blindtune, trained):
        (trained / "private" / "embeddings.npz").unlink()
        blindtune("decrypt", trained).refused("embeddings.npz")


class TestServers:
    def test_wrong_token(self, blindtune, study, server, monkeypatch, tree):
        monkeypatch.setenv("BLINDTUNE_TOKEN", "not the token of this server")
        before = tree(study)
        for command in ("submit", "status", "fetch"):
            blindtune(command, study, "--server", server.url).refused("does not accept the token")
        assert tree(study) == before

    def test_no_token(self, blindtune, study, server, tmp_path):
        blindtune("submit", study, "--server", server.url).refused("no token", "BLINDTUNE_TOKEN")
        ran = blindtune("submit", study, "--server", server.url, "--token-file", tmp_path / "nothing")
        ran.refused("nothing: no token file here")

    @pytest.mark.usefixtures("token")
    def test_no_server(self, blindtune, study, tree):
        before = tree(study)
        blindtune("status", study).refused("no server", "--server URL")
        assert tree(study) == before

    @pytest.mark.usefixtures("token")
    @pytest.mark.parametrize("command", ["submit", "fetch"])
    def test_unreachable(self, blindtune, study, tree, monkeypatch, command):
        monkeypatch.setattr("blindtune.client.transport.PAUSES", (0.01,))
        before = tree(study)
        blindtune(command, study, "--server", "http://127.0.0.1:9").refused("127.0.0.1")
        assert tree(study) == before

    @pytest.mark.usefixtures("token")
    @pytest.mark.parametrize("url", ["http://example.org", "ftp://localhost", "nonsense", "http://"])
    def test_address(self, blindtune, study, tree, url):
        before = tree(study)
        blindtune("submit", study, "--server", url).refused()
        assert tree(study) == before

    @pytest.mark.usefixtures("token")
    def test_unknown_study(self, blindtune, study, server, tree, monkeypatch):
        edit_json(study / "private" / "study.json", lambda s: s.update(study="0" * 32))
        before = tree(study)
        for command in ("status", "fetch"):
            blindtune(command, study, "--server", server.url).refused()
        assert tree(study) == before

    def test_directory_in_use(self, blindtune, server):
        blindtune("serve", "--data-dir", server.data, "--port", 0).refused("another server uses this")

    def test_port_in_use(self, blindtune, server, tmp_path):
        ran = blindtune("serve", "--data-dir", tmp_path / "cloud", "--port", server.port)
        ran.refused("cannot listen at this address")
