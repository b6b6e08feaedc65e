"""Ctrl-C and power cuts: one line, nothing half-made, and the same command again goes on."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace

import pytest

from blindtune.cli import interrupts
from blindtune.imaging import load_embeddings

EMBEDDED = "blindtune_deit_96"
ANNOUNCE = (sys.executable, "-c", "from blindtune.cli.main import run; print('ready', flush=True); run()")


class TestEncrypt:
    @pytest.mark.parametrize(
        ("place", "call"),
        [
            ("blindtune.imaging:load_embeddings", 1),
            ("blindtune.models.rehearsal:rehearse", 5),
            ("blindtune.he.secret:SecretKey.generate", 1),
            ("blindtune.client.encrypt:write_key", 1),
            ("blindtune.he.secret:SecretKey.galois_key", 4),
            ("blindtune.client.encrypt:write_data", 1),
            ("blindtune.he.secret:SecretKey.encrypt", 3),
            ("blindtune.wire.bundle:parse_manifest", 2),
            ("blindtune.client.study:StudyDirectory.save", 1),
            ("blindtune.files:whole_file.__exit__", 2),
            ("blindtune.files:whole_file.__exit__", 3),
        ],
    )
    def test_leaves_nothing(self, blindtune, press, embeddings, tmp_path, place, call):
        press(place, call)
        blindtune("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 1).stopped()
        assert list(tmp_path.iterdir()) == []

    def test_one_that_a_library_swallowed(self, blindtune, embeddings, tmp_path, monkeypatch):
        def load(path):
            interrupts.pressed = True
            return load_embeddings(path)

        monkeypatch.setattr("blindtune.imaging.load_embeddings", load)
        blindtune("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 1).stopped()
        assert list(tmp_path.iterdir()) == []

    def test_goes_on(self, blindtune, press, embeddings, tmp_path):
        command = ("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 1)
        press("blindtune.he.secret:SecretKey.encrypt", 3)
        blindtune(*command).stopped()
        assert blindtune(*command).code == 0

    def test_given_directory_stays(self, blindtune, press, embeddings, tmp_path):
        (tmp_path / "study").mkdir()
        press("blindtune.he.secret:SecretKey.encrypt", 1)
        blindtune("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 1).stopped()
        assert list(tmp_path.rglob("*")) == [tmp_path / "study"]

    def test_features_are_kept(self, blindtune, press, scans, tmp_path, monkeypatch):
        from blindtune.models.features import _embed

        embedded = []
        monkeypatch.setattr(
            "blindtune.models.features._embed",
            lambda backbone, waiting, known: (
                embedded.append(len(waiting)),
                _embed(backbone, waiting, known),
            ),
        )
        command = ("encrypt", scans, "--out", tmp_path / "study", "--backbone", EMBEDDED, "--steps", 1)
        press("blindtune.models.features:_embed", 2)
        blindtune(*command).stopped()
        kept = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
        assert [name.startswith("study/private/features/") for name in kept] == [True]
        assert embedded == [32]
        assert (tmp_path / "study" / "private").stat().st_mode & 0o777 == 0o700
        files = len(list(scans.glob("*.dcm")))
        assert blindtune(*command).code == 0
        assert sum(embedded) == files > 32

    @pytest.mark.parametrize("delay", [0.03, 0.6, 1.5, 3.0])
    def test_at_any_time(self, start, wait_for, interrupt, embeddings, tmp_path, delay):
        process = start(
            *("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 5),
            program=ANNOUNCE,
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        interrupt(process)
        wait_for(process).stopped()
        assert list(tmp_path.iterdir()) == []


class TestDemo:
    def test_keeps_features_only(self, blindtune, press, scans, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "blindtune.imaging.synthetic.write_synthetic_cohort", lambda d: shutil.copytree(scans, d)
        )
        out = tmp_path / "demo"
        press("blindtune.imaging:load_cohort")
        blindtune("demo", "--out", out).stopped()
        assert not out.exists()
        for place, call in (
            ("blindtune.models.features:_embed", 2),
            ("blindtune.client.remote:Remote.submit", 1),
        ):
            press(place, call)
            ran = blindtune("demo", "--out", out)
            # By then encrypt has printed its table.
            replace(ran, out="").stopped()
            files = [p for p in out.rglob("*") if p.is_file()]
            assert files
            assert {p.parent.relative_to(out).as_posix() for p in files} == {
                "hospital/study/private/features",
            }


class TestImports:
    @pytest.mark.parametrize("module", ["typer", "rich", "numpy.linalg", "blindtune.cli.hospital", "tenseal"])
    def test_during_an_import(self, start, wait_for, embeddings, tmp_path, module):
        code = f"""
import signal, sys
from blindtune.cli.main import run
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
run()
"""
        process = start(
            *("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 1),
            program=(sys.executable, "-c", code),
        )
        wait_for(process).stopped()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("token")
class TestSubmit:
    def test_interrupted_and_again(
        self, blindtune, start, wait_for, interrupt, relay, serve, study, token, tmp_path
    ):
        with serve(tmp_path / "cloud") as server:
            # Stopped while 2 of 6 MB are there.
            through = relay(server.port, lambda: interrupt(process), up=2_000_000)
            process = start("submit", study, "--server", through.url, BLINDTUNE_TOKEN=token)
            wait_for(process).stopped()
            assert not (study / "private" / "server.json").exists()
            again = blindtune("submit", study, "--server", server.url, "--json")
            assert again.code == 0, again.err
            assert json.loads(again.out)["state"] in ("queued", "running", "done")
            # And once more, as after Ctrl-C between the start and its answer.
            assert blindtune("fetch", study).code == 0
            done = blindtune("submit", study, "--server", server.url, "--json")
            assert json.loads(done.out)["state"] == "done"

    def test_server_killed_and_again(
        self, blindtune, start, wait_for, relay, serve, study, token, tmp_path, tree
    ):
        before = tree(study)
        with serve(tmp_path / "cloud") as server:
            # The galois keys are most of it: 4.7 of 6.4 MB.
            through = relay(server.port, server.kill, up=3_000_000)
            ran = wait_for(start("submit", study, "--server", through.url, BLINDTUNE_TOKEN=token))
        ran.refused("Run submit again to continue")
        assert tree(study) == before
        with serve(tmp_path / "cloud") as server:
            again = blindtune("submit", study, "--server", server.url)
            assert again.code == 0, again.err
            assert blindtune("fetch", study).code == 0
            assert blindtune("decrypt", study).code == 0


@pytest.mark.usefixtures("token")
class TestFetch:
    @pytest.mark.parametrize("limit", [1, 20_000])
    def test_interrupted_and_again(
        self, blindtune, start, wait_for, interrupt, relay, server, trained, token, tree, limit
    ):
        """While it waits for the first answer, and in the middle of the head."""
        kept = tree(trained)
        through = relay(server.port, lambda: interrupt(process), down=limit)
        process = start("fetch", trained, "--server", through.url, BLINDTUNE_TOKEN=token)
        wait_for(process).stopped()
        assert tree(trained) == kept
        again = blindtune("fetch", trained, "--server", server.url)
        assert again.code == 0, again.err
        assert blindtune("decrypt", trained).code == 0

    def test_first_fetch_leaves_nothing(
        self, start, wait_for, interrupt, relay, server, pristine_trained, study, token, tree
    ):
        kept = tree(study)
        through = relay(server.port, lambda: interrupt(process), down=20_000)
        process = start("fetch", study, "--server", through.url, BLINDTUNE_TOKEN=token)
        wait_for(process).stopped()
        assert tree(study) == kept

    def test_in_the_pause_between_two_looks(self, blindtune, press, server, trained, monkeypatch):
        from blindtune.client.remote import Remote

        look = Remote.status

        def running(self, study):
            return replace(look(self, study), state="running")

        monkeypatch.setattr(Remote, "status", running)
        press("time:sleep", 1)
        for command in (["fetch"], ["status", "--watch"]):
            blindtune(*command, trained).stopped()
            press("time:sleep", 1)


class TestServe:
    def test_stops_and_starts_again(self, start, wait_for, interrupt, tmp_path):
        for _ in range(2):
            process = start("serve", "--data-dir", tmp_path / "cloud", "--port", 0)
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            interrupt(process)
            wait_for(process).stopped()
        assert (tmp_path / "cloud" / "token").stat().st_mode & 0o777 == 0o600

    def test_while_it_starts(self, start, wait_for, interrupt, tmp_path):
        process = start("serve", "--data-dir", tmp_path / "cloud", "--port", 0, program=ANNOUNCE)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        interrupt(process)
        wait_for(process).stopped()


def test_ignored_where_the_shell_says_so(start, wait_for, interrupt, embeddings, tmp_path):
    code = "import signal as s; s.signal(s.SIGINT, s.SIG_IGN); from blindtune.cli.main import run; run()"
    process = start(
        *("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 1),
        program=(sys.executable, "-c", code),
    )
    time.sleep(1)
    interrupt(process)
    assert wait_for(process).code == 0
