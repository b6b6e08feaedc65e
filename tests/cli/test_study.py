"""Studies under a joint key by the commands: each hospital in its directory, and a real server."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.cli import joint
from blindtune.client.flood import error_length
from blindtune.client.remote import Remote
from blindtune.client.transport import StatusError
from blindtune.errors import RemoteError
from blindtune.federation.identity import Identity
from blindtune.federation.members import IDENTITY, make
from blindtune.federation.members import Members as Roster
from blindtune.federation.members import write as write_roster
from blindtune.federation.threshold import offer, party, terms
from blindtune.federation.threshold.draft import Draft
from blindtune.federation.threshold.party import Waiting
from blindtune.federation.threshold.private import SumPrivacy
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.imaging.arrays import load_embeddings
from blindtune.models.heads import Encoded
from blindtune.models.linear import LinearHead
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.params import ParametersLiteral
from blindtune.plan import plan
from tests.cli.conftest import TOKEN, Ran, serving
from tests.openfhe import needs_openfhe, why_not_openfhe

NAMES = ("charite", "lmu", "tum")
ROWS = {"charite": 60, "lmu": 40, "tum": 50}
CLASSES = ("normal", "bacterial", "viral")
PLAN = ("--features", 6, "--rate", 4, "--degree", 1, "--rows", 64)
Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process of its own that trains with OpenFHE."""
    data = tmp_path_factory.mktemp("server") / "cloud"
    with serving(data, BLINDTUNE_ACCELERATOR="openfhe") as server:
        yield server.url


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hospitals' keys, embeddings and roster."""
    place = tmp_path_factory.mktemp("homes")
    rng = np.random.default_rng(3)
    centres, mixing = rng.normal(size=(3, 6)), rng.normal(size=(6, 6))
    cards = []
    for n, name in enumerate(NAMES):
        (place / name).mkdir()
        cards.append(make(place / name, name))
        rows = ROWS[name]
        labels = np.where(rng.random(rows) < 0.6, n, rng.integers(0, 3, rows))
        if name == "charite":
            # Not every hospital has cases of every class.
            labels[labels == 2] = 0
        np.savez(
            place / f"{name}.npz",
            embeddings=((2 * centres[labels] + rng.normal(size=(rows, 6))) @ mixing).astype(np.float32),
            labels=labels,
            classes=np.array(CLASSES),
            splits=np.array(["train"] * (rows - 8) + ["val"] * 4 + ["test"] * 4),
        )
    write_roster(place / "roster.json", Roster(members=cards))
    return place


class Hospitals:
    """The hospitals of one study, at their terminals."""

    def __init__(self, run: Run, homes: Path, place: Path, url: str) -> None:
        self.run, self.homes, self.place, self.url = run, homes, place, url

    def say(self, command: str, name: str, *args: object) -> Ran:
        """A command of ``blindtune study`` in a hospital's directory."""
        return self.run("study", command, self.place / name, *args)

    def told(self, command: str, name: str, *args: object) -> Any:
        """What it prints as JSON."""
        ran = self.say(command, name, *args, "--json")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    def all(self, command: str, *args: object) -> list[Any]:
        """By each hospital in turn, without waiting."""
        return [self.told(command, name, "--no-wait", *args) for name in NAMES]

    def identity(self, name: str) -> Identity:
        return Identity.read(self.homes / name / IDENTITY)

    def offer(self, made: Terms) -> Terms:
        """Offer terms, and have all hospitals join."""
        with Remote(self.url, TOKEN) as remote:
            offer.post(remote.mailbox(made.study), made, "tum", self.identity("tum"))
        for name in NAMES:
            self.join(name, made.study)
        return made

    def join(self, name: str, study: str) -> Any:
        return self.told("join", name, "--study", study, "--home", self.homes / name, "--server", self.url)

    def missing(self, name: str = "tum") -> tuple[str, list[str]]:
        """The last phase that a hospital's status tells, and who is missing in it."""
        last = self.told("status", name)["phases"][-1]
        return last["phase"], last["missing"]


@pytest.fixture
def hospitals(blindtune: Run, homes: Path, tmp_path: Path, url: str, token: str) -> Hospitals:
    return Hospitals(blindtune, homes, tmp_path, url)


@pytest.fixture(scope="module")
def draft(homes: Path) -> Draft:
    """What the hospitals train, planned and not rehearsed."""
    from blindtune.federation.agreement import HeadModel

    members = Roster.model_validate_json((homes / "roster.json").read_bytes())
    model = HeadModel(features=6, directions=6, degree=1, rows=64, loss="one-vs-rest", blind=True)
    return Draft.planned(members.roster, Task(model=model, classes=list(CLASSES), rates=[4.0]))


@pytest.fixture
def offered(hospitals: Hospitals, draft: Draft) -> Terms:
    """A study that all have joined and nobody has approved."""
    return hospitals.offer(draft.terms(2.0**20))


def in_clear(homes: Path, task: Task) -> tuple[Any, Any, Any]:
    """All rows, and the same steps on the pooled training rows: weights and biases on raw features."""
    data = [load_embeddings(homes / f"{name}.npz", shard=True) for name in NAMES]
    x = np.vstack([d.features[d.indices("train")] for d in data]).astype(np.float64)
    y = np.eye(3)[np.concatenate([d.labels[d.indices("train")] for d in data])]
    whitening = Whitening.fit(x, task.model.directions, task.model.epsilon, "")
    share = y.mean(axis=0)
    weights = np.where(y > 0, 0.5 / share, 0.5 / (1 - share))
    encoded = Encoded(weights * (y - 0.5), weights * task.head.coefficients[:, None, None])
    return x, *whitening.fold(rehearse(whitening.apply(x), encoded, task.head).weights)


# Forty commands and fifteen hundred requests: minutes on a busy machine.
@pytest.mark.timeout(900)
@needs_openfhe
def test_from_a_roster_to_one_head(hospitals: Hospitals, homes: Path, tmp_path: Path) -> None:
    names = [part for name in CLASSES for part in ("--class", name)]
    offer_by = ("--home", homes / "tum", "--server", hospitals.url)
    made = hospitals.run(
        "study",
        "create",
        tmp_path / "terms.json",
        "--roster",
        homes / "roster.json",
        *PLAN,
        *names,
        *offer_by,
    )
    assert made.code == 0, made.err
    agreed = Terms.parse((tmp_path / "terms.json").read_bytes())
    assert agreed.parameters.security == 128
    joined = hospitals.join("lmu", agreed.study)
    assert (joined["fingerprint"], joined["offered_by"]) == (agreed.fingerprint, "tum")
    assert (joined["members"], joined["this_hospital"]) == (list(NAMES), "lmu")
    for name in ("charite", "tum"):
        given = ("--terms", tmp_path / "terms.json", "--home", homes / name, "--server", hospitals.url)
        assert hospitals.told("join", name, *given)["fingerprint"] == agreed.fingerprint
    assert hospitals.missing() == ("join", list(NAMES))
    rehearsed = hospitals.told("rehearse", "lmu")
    assert rehearsed["margin"] * rehearsed["found"] == pytest.approx(agreed.length, rel=0.01)
    assert 2 < rehearsed["margin"] < 8

    own = ("--roster", homes / "roster.json")
    assert [told["stage"] for told in hospitals.all("approve", *own)] == ["join", "join", "first"]
    assert hospitals.missing() == ("first", ["charite", "lmu"])
    assert [told["stage"] for told in hospitals.all("approve")] == ["first", "second", "second"]
    assert hospitals.missing() == ("second", ["charite"])
    assert hospitals.told("approve", "charite", "--no-wait")["missing"] == ["lmu", "tum"]
    assert hospitals.missing() == ("confirm", ["lmu", "tum"])
    hospitals.told("approve", "tum", "--no-wait")
    approved = [hospitals.told("approve", name) for name in ("lmu", "charite", "tum")]
    assert len({told["fingerprint"] for told in approved}) == 1
    assert hospitals.missing("lmu") == ("sum-rows", list(NAMES))

    def contribute(name: str) -> Any:
        return hospitals.told("contribute", name, homes / f"{name}.npz", "--no-wait")

    assert contribute("lmu")["missing"] == ["charite", "tum"]
    contribute("charite")
    assert hospitals.missing() == ("sum-rows", ["tum"])
    hospitals.say("contribute", "lmu", homes / "tum.npz").refused("other rows")
    assert contribute("tum")["uploaded"] == ["tum"]
    assert contribute("lmu")["missing"] == ["charite"]
    phases = {p["phase"]: p["missing"] for p in hospitals.told("status", "lmu")["phases"]}
    assert (phases["rows"], phases["evaluation keys"]) == (["charite"], ["charite"])
    hospitals.say("open", "lmu", "--no-wait").refused("the study is uploading")
    assert contribute("charite")["state"] in ("queued", "running", "done")
    until = time.monotonic() + 120
    while (state := hospitals.told("status", "tum")["state"]) != "training done":
        assert state in ("training queued", "training running")
        assert time.monotonic() < until
        time.sleep(0.5)

    assert hospitals.told("open", "charite", "--no-wait")["missing"] == ["lmu", "tum"]
    assert hospitals.missing("charite") == ("consent", ["lmu", "tum"])
    assert hospitals.told("open", "lmu", "--no-wait")["missing"] == ["tum"]
    assert hospitals.told("open", "tum", "--no-wait")["missing"] == ["charite", "lmu"]
    assert hospitals.missing("tum") == ("share", ["charite", "lmu"])
    hospitals.told("open", "lmu", "--no-wait")
    assert [told["state"] for told in hospitals.all("open")] == ["open"] * 3
    assert hospitals.told("status", "lmu")["state"] == "open"
    assert hospitals.told("delete", "lmu")["state"] == "deleted"
    hospitals.say("delete", "tum").refused("no such thing here")
    assert hospitals.told("status", "tum")["state"] == "open"
    heads = [LinearHead.load(tmp_path / name / "head") for name in NAMES]
    assert heads[0].classes == CLASSES
    assert agreed.task is not None
    x, weights, biases = in_clear(homes, agreed.task)
    exact = x @ weights.T + biases
    for head in heads:
        np.testing.assert_allclose(head.logits(x), exact, atol=0.01 * np.abs(exact).max())
    ran = hospitals.run("predict", tmp_path / "lmu" / "head", homes / "lmu.npz", "--split", "test", "--json")
    own = load_embeddings(homes / "lmu.npz")
    said = heads[1].logits(own.features[own.indices("test")]).argmax(axis=1)
    assert [row["prediction"] for row in json.loads(ran.out)] == [CLASSES[k] for k in said]


@pytest.mark.timeout(900)
@needs_openfhe
def test_weights_are_refreshed_while_the_server_trains(
    hospitals: Hospitals, draft: Draft, homes: Path, tmp_path: Path
) -> None:
    """Two steps in a ring that holds one: the hospitals are asked in between."""
    task = draft.task.model_copy(update={"rates": [4.0, 4.0]})
    small = ParametersLiteral(16384, 5, 55, 56, 60).checked()
    shape = (192, task.model.directions + 1, 3, task.head)
    planned = plan(*shape, member_rows=(64,) * 3, parameters=small, refreshes=(1,))
    agreed = hospitals.offer(Draft(draft.roster, task, planned).terms(2.0**20))
    for _ in range(4):
        hospitals.all("approve")
    for name in (*NAMES, *NAMES):
        hospitals.told("contribute", name, homes / f"{name}.npz", "--no-wait")

    def reached(state: str) -> None:
        until = time.monotonic() + 240
        while not (found := hospitals.told("status", "tum")["state"]).startswith(state):
            assert found.startswith(("training queued", "training running"))
            assert time.monotonic() < until
            time.sleep(0.5)

    reached("training waiting: the hospitals have to refresh the weights (1 of 1)")
    for name, missing in (("charite", ["lmu", "tum"]), ("lmu", ["tum"])):
        told = hospitals.told("open", name, "--no-wait")
        assert (told["stage"], told["missing"]) == ("refresh-0", missing)
    # The last one puts the parts together and has the training go on.
    hospitals.say("open", "tum", "--no-wait").refused("the study is")
    reached("training done")
    for _ in range(3):
        states = [told["state"] for told in hospitals.all("open")]
    assert states == ["open"] * 3
    x, weights, biases = in_clear(homes, task)
    exact = x @ weights.T + biases
    for name in NAMES:
        head = LinearHead.load(tmp_path / name / "head")
        np.testing.assert_allclose(head.logits(x), exact, atol=0.01 * np.abs(exact).max())
    assert agreed.program.refreshes == [1]


@pytest.mark.timeout(900)
@needs_openfhe
def test_sums_under_noise_are_paid_for_once_before_they_leave(
    hospitals: Hospitals, draft: Draft, homes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dp_accounting")
    privacy = SumPrivacy(noise=3.0, delta=1e-3)
    task = draft.task.model_copy(update={"privacy": privacy})
    agreed = hospitals.offer(Draft(draft.roster, task, draft.plan).terms(2.0**20))
    seen = hospitals.join("lmu", agreed.study)
    assert seen["privacy"]["epsilon"] == privacy.epsilon
    assert {row["hospitals"] for row in seen["revealed"]} > {
        "counts of each class, pooled mean and covariance, under noise",
        "the head, and nothing else; it is trained on exact rows",
    }
    books = {name: tmp_path / f"{name}.ledger" for name in NAMES}
    for name, book in books.items():
        budget = "0.5" if name == "tum" else "9"
        assert hospitals.run("dp", "open", book, "--epsilon", budget, "--delta", "1e-3").code == 0
    hospitals.say("approve", "tum", "--no-wait").refused("privacy ledger", "blindtune dp open")
    hospitals.say("approve", "tum", "--no-wait", "--ledger", books["tum"]).refused("would take epsilon to")
    assert hospitals.missing() == ("join", list(NAMES))
    books["tum"] = tmp_path / "more.ledger"
    hospitals.run("dp", "open", books["tum"], "--epsilon", "9", "--delta", "1e-3")
    for name in NAMES:
        told = hospitals.told("approve", name, "--no-wait", "--ledger", books[name])
        assert told["privacy"]["noise"] == 3.0
    for _ in range(3):
        hospitals.all("approve")
    assert hospitals.told("status", "lmu")["privacy"]["covers"] == "counts and moments alone, not the head"
    plain = hospitals.say("status", "lmu").out
    assert "against all other hospitals" in " ".join(plain.replace("│", " ").split())

    hospitals.say("contribute", "lmu", homes / "lmu.npz", "--no-wait").refused("no patients in the file")
    books["lmu"] = books["lmu"].rename(tmp_path / "moved.ledger")
    hospitals.say("contribute", "lmu", homes / "lmu.npz", "--no-wait").refused("no privacy ledger here")
    (hospitals.place / "lmu" / "ledger.json").write_text("{")
    hospitals.say("contribute", "lmu", homes / "lmu.npz", "--no-wait").refused("damaged", "--ledger")
    hospitals.told("approve", "lmu", "--ledger", books["lmu"])
    for name in NAMES:
        rows = dict(np.load(homes / f"{name}.npz"))
        np.savez(tmp_path / f"{name}.npz", **rows, patients=np.arange(ROWS[name]))
    for name in (*NAMES, *NAMES):
        told = hospitals.told("contribute", name, tmp_path / f"{name}.npz", "--no-wait")
        assert told["epsilon_spent"] == pytest.approx(privacy.epsilon, abs=1e-3)
    for name in NAMES:
        shown = json.loads(hospitals.run("dp", "show", books[name], "--json").out)
        assert [c["purpose"] for c in shown["charges"]] == [f"{agreed.study}: counts and moments"]
    until = time.monotonic() + 240
    while (state := hospitals.told("status", "tum")["state"]) != "training done":
        assert state in ("training queued", "training running")
        assert time.monotonic() < until
        time.sleep(0.5)
    for _ in range(3):
        states = [told["state"] for told in hospitals.all("open")]
    assert states == ["open"] * 3
    weights = [LinearHead.load(tmp_path / name / "head").weight for name in NAMES]
    assert np.isfinite(weights[0]).all()
    for other in weights[1:]:
        np.testing.assert_array_equal(other, weights[0])


@needs_openfhe
def test_exact_sums_take_no_ledger(hospitals: Hospitals, offered: Terms, tmp_path: Path) -> None:
    assert hospitals.told("status", "lmu")["privacy"] is None
    hospitals.say("approve", "lmu", "--ledger", tmp_path / "any").refused("these terms add no noise")


@needs_openfhe
def test_a_hospital_is_stopped_while_it_waits_and_goes_on(
    hospitals: Hospitals, offered: Terms, start: Any, wait_for: Any
) -> None:
    process = start("study", "approve", hospitals.place / "lmu", BLINDTUNE_TOKEN=TOKEN)
    line = process.stderr.readline()
    assert line == "waiting for charite, tum (join)\n"
    assert hospitals.missing("charite") == ("join", ["charite", "tum"])
    assert hospitals.missing("lmu") == ("join", ["charite", "tum"])
    hospitals.say("approve", "lmu").refused("another process")
    process.send_signal(signal.SIGINT)
    wait_for(process).stopped()
    assert hospitals.told("approve", "lmu", "--no-wait")["missing"] == ["charite", "tum"]


@needs_openfhe
def test_a_refusal_ends_the_study_for_all(hospitals: Hospitals, offered: Terms) -> None:
    assert hospitals.told("approve", "tum", "--no-wait")["missing"] == ["charite", "lmu"]
    told = hospitals.told("refuse", "lmu", "--reason", "no consent of our patients")
    assert told["state"] == "refused"
    for name in ("charite", "tum", "lmu"):
        refusal = "lmu ended the study: no consent of our patients"
        hospitals.say("approve", name, "--no-wait").refused(refusal)
        assert hospitals.told("status", name)["state"] == refusal


@needs_openfhe
def test_only_what_was_looked_at_is_approved(hospitals: Hospitals, offered: Terms, homes: Path) -> None:
    other = offered.model_copy(update={"results": 2}).model_dump_json()
    (hospitals.place / "lmu" / "terms.json").write_text(other)
    hospitals.say("approve", "lmu").refused("the study's plan is not the one that was approved")
    hospitals.say(
        "join", "lmu", "--study", offered.study, "--home", homes / "lmu", "--server", hospitals.url
    ).refused("other terms, were offered here before")
    hospitals.told("approve", "tum", "--no-wait")
    (hospitals.place / "tum" / "approved.json").write_text(other)
    hospitals.say("contribute", "tum", homes / "tum.npz").refused("plan is not the one")
    own = Roster.model_validate_json((homes / "roster.json").read_bytes())
    fewer = Roster(members=[card for card in own.members if card.name != "lmu"])
    write_roster(hospitals.place / "mine.json", fewer)
    hospitals.say("approve", "charite", "--roster", hospitals.place / "mine.json").refused("roster")
    hospitals.say("contribute", "charite", homes / "charite.npz").refused("has not approved")


@needs_openfhe
def test_terms_with_too_little_error_are_refused_by_whoever_rehearses(
    hospitals: Hospitals, draft: Draft
) -> None:
    hospitals.offer(draft.terms(error_length(draft.layout, draft.layout.rows) / 4))
    hospitals.say("rehearse", "lmu").refused("times what was found here", "Do not approve")


@needs_openfhe
def test_another_version_is_noticed_on_both_sides(
    hospitals: Hospitals, offered: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old:
        old.setattr(terms, "__version__", "0.0.9")
        hospitals.say("approve", "lmu").refused("version of blindtune is not the one")
    with monkeypatch.context() as old:
        old.setattr(party, "__version__", "0.0.9")
        hospitals.say("approve", "lmu", "--no-wait").refused("lmu runs version 0.0.9 of blindtune, not")
    hospitals.say("approve", "tum", "--no-wait").refused("lmu")


@needs_openfhe
def test_nobody_speaks_in_a_hospitals_name(
    hospitals: Hospitals, offered: Terms, draft: Draft, tmp_path: Path
) -> None:
    """Whoever has the hospitals' token writes first, and takes nobody's place."""
    second = Hospitals(hospitals.run, hospitals.homes, tmp_path / "second", hospitals.url)
    other = second.offer(draft.terms(2.0**20))
    hospitals.told("approve", "lmu", "--no-wait")
    with Remote(hospitals.url, TOKEN) as remote:
        source, target = remote.mailbox(offered.study), remote.mailbox(other.study)
        said = source.fetch("join", "join", "lmu", 1 << 20)
        assert said is not None
        # From another study, under another's name, and altered.
        for mailbox, name, message in (
            (target, "lmu", said),
            (source, "charite", said),
            (source, "tum", said.replace(b'"sender":"lmu"', b'"sender":"tum"')),
        ):
            with pytest.raises(RemoteError, match="not signed by the member in whose name it comes"):
                mailbox.post("join", "join", name, message)
    assert second.told("approve", "lmu", "--no-wait")["missing"] == ["charite", "tum"]
    assert hospitals.told("approve", "charite", "--no-wait")["missing"] == ["tum"]
    assert hospitals.told("approve", "tum", "--no-wait")["stage"] == "first"


@needs_openfhe
def test_terms_that_came_by_file_lie_at_the_server_from_the_first_word_on(
    hospitals: Hospitals, draft: Draft, homes: Path, tmp_path: Path
) -> None:
    made = draft.terms(2.0**20)
    (tmp_path / "terms.json").write_text(made.model_dump_json())
    for name in NAMES:
        given = ("--terms", tmp_path / "terms.json", "--home", homes / name, "--server", hospitals.url)
        hospitals.told("join", name, *given)
    assert hospitals.told("approve", "lmu", "--no-wait")["missing"] == ["charite", "tum"]
    assert hospitals.told("approve", "tum", "--no-wait")["missing"] == ["charite"]
    with Remote(hospitals.url, TOKEN) as remote:
        assert offer.fetch(remote.mailbox(made.study), made.study) == offer.Offer(made, "lmu")


def test_waiting_outlasts_a_server_that_is_away(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joint, "PAUSE", 0.0)
    away, refusal = RemoteError("cannot reach the server"), StatusError("no", where="", remedy="", status=403)
    here = Waiting("first", ("lmu", "tum"))

    def doing(*found: Waiting | RemoteError) -> Callable[[], Waiting]:
        left = iter(found)

        def step() -> Waiting:
            one = next(left)
            if isinstance(one, RemoteError):
                raise one
            return one

        return step

    done = Waiting("confirm", ())
    assert joint.until(doing(here, here, away, away, here, done), True, False) == done
    assert capfd.readouterr().err.splitlines() == [
        "waiting for lmu, tum (first)",
        "cannot reach the server; trying again",
        "waiting for lmu, tum (first)",
    ]
    assert joint.until(doing(here, done), False, False) == here
    for never in (doing(away, done), doing(here, refusal, done)):
        with pytest.raises(RemoteError):
            joint.until(never, True, True)


@pytest.mark.skipif(not why_not_openfhe(), reason="OpenFHE is here")
@pytest.mark.usefixtures("token")
def test_without_openfhe_it_says_what_to_install(blindtune: Run, homes: Path, tmp_path: Path) -> None:
    names = [part for name in CLASSES for part in ("--class", name)]
    create = ("study", "create", tmp_path / "terms.json", "--roster", homes / "roster.json", *PLAN, *names)
    blindtune(*create).refused("OpenFHE cannot be loaded", "pip install 'blindtune[openfhe]'")
    assert not (tmp_path / "terms.json").exists()


def test_what_is_wrong_with_a_call_is_told_in_one_line(
    blindtune: Run, homes: Path, tmp_path: Path, token: str
) -> None:
    there = tmp_path / "study"
    for command in ("approve", "open", "status"):
        blindtune("study", command, there).refused("no study was joined here")
    blindtune("study", "contribute", there, homes / "tum.npz").refused("no study was joined here")
    join = ("study", "join", there, "--home", homes / "tum")
    blindtune(*join, "--server", "http://127.0.0.1:9").refused("--terms FILE or --study ID")
    blindtune(*join, "--terms", homes / "tum.npz").refused("no server")
    at = ("--server", "http://127.0.0.1:9")
    blindtune(*join, "--terms", homes / "tum.npz", *at).refused("not the terms of a study")
    blindtune(*join, "--terms", tmp_path / "none", *at).refused("cannot be read")
    blindtune(*join, "--study", "5a", *at).refused("32 hexadecimal digits")
    create = ("study", "create", tmp_path / "terms.json", "--roster", homes / "roster.json", "--features", 6)
    two = ("--class", "a", "--class", "b")
    blindtune(*create, *two, *at).refused("nobody signs the offer")
    blindtune(*create, "--class", "a").refused("classes")
    blindtune(*create, *two, "--directions", 7).refused("more directions than features")
    blindtune(*create, *two, *(["--rate", 4] * 65)).refused("rates")
    blindtune(*create, *two, "--security", 100).refused("no security level 100")
    assert not there.exists()
    assert not (tmp_path / "terms.json").exists()


def test_a_stranger_does_not_join(
    blindtune: Run, homes: Path, draft: Draft, tmp_path: Path, token: str
) -> None:
    shutil.copytree(homes / "tum", tmp_path / "home")
    card = json.loads((tmp_path / "home" / "card.json").read_text())
    (tmp_path / "home" / "card.json").write_text(json.dumps({**card, "name": "ukb"}))
    (tmp_path / "terms.json").write_text(draft.terms(2.0**20).model_dump_json())
    at = ("--terms", tmp_path / "terms.json", "--server", "http://127.0.0.1:9")
    blindtune("study", "join", tmp_path / "study", "--home", tmp_path / "home", *at).refused(
        "this hospital is not a member"
    )


def test_noise_that_cannot_be_is_refused_before_the_rehearsal(
    blindtune: Run, homes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dp_accounting")
    names = [part for name in CLASSES for part in ("--class", name)]
    create = ("study", "create", tmp_path / "terms.json", "--roster", homes / "roster.json", *PLAN, *names)
    blindtune(*create, "--delta", 0.001).refused("no noise to tell it of", "--sums-epsilon")
    blindtune(*create, "--sums-epsilon", 0).refused("sums-epsilon")
    blindtune(*create, "--sums-epsilon", "nan").refused("sums-epsilon")
    blindtune(*create, "--sums-epsilon", 1, "--delta", 2).refused("delta")
    blindtune(*create, "--sums-epsilon", 1, "--delta", 0.1).refused("one patient of 64")
    loud = ("--sums-epsilon", 0.01, "--delta", 1e-10, "--features", 512)
    blindtune(*create, *loud).refused("do not fit a sum")
    blindtune(*create, "--sums-epsilon", 1, "--delta", 1e-300).refused("delta")
    blindtune(*create, "--reach", 0).refused("reach")
    assert not (tmp_path / "terms.json").exists()
