"""The inversion audit as a whole: control, protections, and going on after a stop."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.audit.inversion import Strength
from blindtune.audit.reconstruction import GUESS, OPEN, Setting, attack, sights
from blindtune.errors import InputError

QUICK = Setting("deit_tiny_patch16_224", images=3, strength=Strength(iterations=2))
PROTECTIONS = sights(2, [3], [(8.0, 0.8)])


@pytest.fixture(scope="module")
def done(chests, tmp_path_factory):
    """Results and pictures of a quick audit, and its folder."""
    place = tmp_path_factory.mktemp("state")
    return *attack(chests, QUICK, PROTECTIONS, state=place), place


def test_the_control_succeeds_and_protections_are_judged_beside_it(done):
    results, pictures, _ = done
    told = {r.protection: r for r in results}
    assert list(told) == [*(s.name for s in PROTECTIONS), GUESS]
    assert all(r.control for r in results)
    assert [told[s.name].trials for s in PROTECTIONS] == [3, 4, 6, 3, 3]
    hits = {name: r.figures["patients re-identified"].value for name, r in told.items()}
    assert hits[OPEN] == 1.0 == hits["clipping, noise left out: one image"]
    assert hits["epsilon 8: one image"] < 1
    assert told[OPEN].figures["PSNR, dB"].value > 50
    assert told["epsilon 8: one image"].figures["t-test of SSIM against no protection, p"].value < 0.05
    assert told[OPEN].figures["ANOVA of SSIM over the protections, p"].value < 0.05
    assert {k: len(v) for k, v in pictures.items()} == {
        "true": 6, **{s.name: told[s.name].trials for s in PROTECTIONS}, GUESS: 1,
    }  # fmt: skip


def test_results_tell_nothing_of_a_patient(done, chests):
    results, _, _ = done
    assert {r.target for r in results} == {f"{QUICK.target}; {chests.source}"}


def test_an_audit_goes_on_where_it_was_stopped(done, chests):
    results, pictures, place = done
    files = sorted(place.iterdir())
    assert len(files) == 3 + 2 + 1 + 3 + 3
    # What is there is taken as it is; what is damaged is made again.
    with np.load(files[0]) as kept:
        changed = {**kept, "images": np.zeros_like(kept["images"])}
    np.savez(files[0], **changed)
    files[1].write_bytes(b"cut short")
    files[2].unlink()
    again, others = attack(chests, QUICK, PROTECTIONS, state=place)
    zeros = sum(int((np.abs(v).max(axis=(1, 2)) == 0).sum()) for v in others.values())
    assert zeros >= 1
    assert len(again) == len(results)
    assert sorted(place.iterdir()) == files
    assert sum(not np.array_equal(others[n], pictures[n]) for n in pictures) <= 3


def test_too_few_patients_for_what_is_asked(chests):
    with pytest.raises(InputError, match="fewer sites"):
        attack(chests, QUICK, sights(2, [30], []))
