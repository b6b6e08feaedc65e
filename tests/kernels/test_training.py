"""Encrypted gradient descent against dense numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blindtune.errors import EngineError, PlanError
from blindtune.he.clear import ClearEngine
from blindtune.he.engines import evaluation_engine
from blindtune.he.secret import SecretKey
from blindtune.kernels import blocks
from blindtune.kernels.blocks import Blocks
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program, Progress, State, Trainer
from blindtune.params import Parameters, ParametersLiteral

RETAIN = st.sampled_from([1.0, 0.9, 0.5, 0.0, -0.25])
MOMENTUM = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@st.composite
def programs(draw: Any) -> Program:
    started, degree = draw(st.booleans()), draw(st.sampled_from([1, 3, 5, 7]))
    steps = draw(st.integers(1, 3 if started else 4))
    sets = [0, *draw(st.lists(st.integers(0, 2), min_size=steps - 1, max_size=steps - 1))]
    retain = draw(st.lists(RETAIN, min_size=steps, max_size=steps))
    momentum = draw(st.one_of(st.just([]), st.lists(MOMENTUM, min_size=steps, max_size=steps)))
    refreshes = draw(st.sets(st.integers(1, steps - 1))) if steps > 1 else set()
    return Program(
        steps, degree, tuple(sets), tuple(retain), tuple(momentum), started, tuple(sorted(refreshes))
    )


@settings(max_examples=40)
@given(st.data())
def test_any_study_in_clear_slots(
    layouts: Any, clear_engine: Any, draw_study: Any, data: st.DataObject
) -> None:
    layout, program = data.draw(layouts()), data.draw(programs())
    rows = data.draw(st.integers(layout.rows * (layout.row_blocks - 1) + 1, layout.rows * layout.row_blocks))
    heads = data.draw(st.integers(layout.lanes * (layout.weight_blocks - 1) + 1, layout.lanes * 2))
    heads = min(heads, layout.lanes * layout.weight_blocks)
    study = draw_study(layout, program, (rows, data.draw(st.integers(1, layout.columns)), heads), 1)
    with np.errstate(all="ignore"):
        dense = study.dense()
    # A draw that diverges, as a polynomial of degree seven can on one row, says nothing about kernels.
    assume(np.isfinite(dense).all() and np.abs(dense).max() < 100)
    e: ClearEngine = clear_engine(layout)
    weights = study.trainer(e, e.encrypt).train(program, start=study.start(e.encrypt))
    near = 1e-5 * (1 + np.abs(dense).max())
    np.testing.assert_allclose(study.head(weights, e.decrypt), dense, atol=near)
    assert {c.level for block in weights for c in block} == {17 - program.levels_after(program.steps)}


@pytest.mark.parametrize(
    ("layout", "program", "shape"),
    [
        (Layout(512, 2, (8, 4), 4, 1, 1), Program(2, 7, (0, 1), (1.0, 0.9)), (200, 23, 2)),
        (Layout(512, 1, (8,), 4, 2, 1), Program(3, 3, (0, 0, 0), (1.0, 1.0, 1.0)), (700, 16, 1)),
        (Layout(512, 128, (4,), 2, 1, 2), Program(2, 5, (0, 0), (1.0, 0.5)), (4, 5, 200)),
        (Layout(512, 4, (8, 4, 4), 2, 1, 1), Program(3, 1, (0, 0, 0), (1.0, 0.0, 1.0)), (100, 32, 3)),
        (
            Layout(512, 2, (8, 4), 2, 1, 2),
            Program(4, 1, (0, 1, 0, 1), (1.0, 1.0, 0.9, 1.0), (0.0, 0.25, 0.4, 0.5)),
            (200, 20, 3),
        ),
        (Layout(512, 2, (8, 4), 4, 1, 2), Program(1, 7, (0,), (1.0,), (), started=True), (200, 23, 3)),
        (Layout(512, 1, (8,), 4, 2, 1), Program(2, 3, (0, 0), (0.9, 0.9), (), started=True), (700, 16, 1)),
    ],
)
def test_studies_encrypted(
    layout: Layout,
    program: Program,
    shape: tuple[int, int, int],
    tiny_key: SecretKey,
    draw_study: Any,
) -> None:
    study = draw_study(layout, program, shape, 2)
    engine = tiny_key.engine(layout.keys())
    start = study.start(lambda v: engine.load(tiny_key.encrypt(v)))
    trainer = study.trainer(engine, lambda v: engine.load(tiny_key.encrypt(v)))
    weights = trainer.train(program, start=start)
    dense, head = study.dense(), study.head(weights, tiny_key.decrypt)
    clear = ClearEngine(tiny_key.parameters, layout.keys())
    again = study.trainer(clear, clear.encrypt).train(program, start=study.start(clear.encrypt))
    drifted = study.head(again, clear.decrypt)
    size = 1 + np.abs(dense).max()
    assert np.abs(head - drifted).max() < 1.5e-5 * size
    assert np.abs(drifted - dense).max() < 1.5e-3 * size


def test_three_steps_of_degree_seven_at_128_bits(draw_study: Any) -> None:
    p = ParametersLiteral(16384, 11).checked()
    layout, program = Layout(p.slots, 512, (4,), 4, 1, 1), Program(3, 7, (0, 0, 0), (1.0,) * 3)
    study = draw_study(layout, program, (16, 8, 5), 3)
    key = SecretKey.generate(p)
    engine = key.engine(layout.keys())
    trainer = study.trainer(engine, lambda v: engine.load(key.encrypt(v)))
    weights = trainer.train(program)
    assert [c.level for c in weights[0]] == [0]
    dense, head = study.dense(), study.head(weights, key.decrypt)
    clear = ClearEngine(p, layout.keys())
    expected = study.head(
        study.trainer(clear, clear.encrypt).train(program),
        clear.decrypt,
    )
    # Noise is 2e-4 in the worst of thirty runs, in every lane alike; the drift of the scales is the same
    # in every run.
    assert np.abs(head - expected).max() < 6e-4
    assert np.abs(head - dense).max() < 1.5e-2
    assert np.abs(dense).max() > 0.5


def test_twelve_steps_on_the_levels_of_two(tiny_key: SecretKey, draw_study: Any) -> None:
    """Weights come back with all levels, and so do those before them, which momentum looks back to."""
    layout = Layout(512, 2, (8, 4), 4, 1, 2)
    momentum = tuple(min(0.5, t / (t + 3)) for t in range(12))
    program = Program(12, 3, (0, 1) * 6, (0.9,) * 12, momentum, False, (2, 4, 6, 8, 10))
    study = draw_study(layout, program, (200, 23, 3), 2)
    engine = tiny_key.engine(layout.keys())
    asked = []

    def refresh(number: int, batch: list[Any]) -> list[Any]:
        asked.append((number, sorted({c.level for c in batch}), len(batch)))
        return [engine.load(tiny_key.encrypt(tiny_key.decrypt(c))) for c in batch]

    trainer = study.trainer(engine, lambda v: engine.load(tiny_key.encrypt(v)))
    seen: list[Progress] = []
    weights = trainer.train(program, seen.append, refresh=refresh)
    assert program.levels == 8
    assert asked == [(0, [6, 10], 8), *((n, [3, 7], 8) for n in range(1, 5))]
    assert seen[-1].done == seen[-1].total == len(seen)
    assert [at.step for at in seen if at.phase == "refresh"] == [3, 5, 7, 9, 11]
    dense = study.dense()
    assert np.abs(dense).max() > 0.5
    assert np.abs(study.head(weights, tiny_key.decrypt) - dense).max() < 3e-3 * (1 + np.abs(dense).max())


def test_refreshes_that_cannot_be(tiny_key: SecretKey, draw_study: Any) -> None:
    for refreshes in ((0,), (3,), (2, 1), (1, 1)):
        with pytest.raises(PlanError, match="of 3 steps"):
            Program(3, 3, (0,) * 3, (1.0,) * 3, refreshes=refreshes)
    layout, program = Layout(512, 2, (8,), 4, 1, 1), Program(2, 1, (0, 0), (1.0, 1.0), refreshes=(1,))
    study = draw_study(layout, program, (200, 16, 2), 2)
    engine = tiny_key.engine(layout.keys())
    trainer = study.trainer(engine, lambda v: engine.load(tiny_key.encrypt(v)))
    with pytest.raises(EngineError, match="cannot make ciphertexts fresh"):
        trainer.train(program)
    with pytest.raises(PlanError, match="something else than as many fresh"):
        trainer.train(program, refresh=lambda _, batch: batch)


@pytest.mark.parametrize(
    "program",
    [
        Program(3, 3, (0, 1, 0), (1.0, 0.9, 1.0)),
        Program(4, 1, (0,) * 4, (1.0,) * 4, (0.0, 0.25, 0.4, 0.5)),
        Program(3, 1, (0,) * 3, (0.9,) * 3, (0.0, 0.5, 0.5), started=True),
    ],
)
def test_going_on_after_any_step_in_another_engine_gives_the_same_residues(
    program: Program, tiny_key: SecretKey, draw_study: Any
) -> None:
    layout = Layout(512, 2, (8, 4), 2, 2, 2)
    study = draw_study(layout, program, (400, 20, 3), 2)
    keys, sent = layout.keys(), []
    galois = {element: tiny_key.galois_key(element) for element in tiny_key.galois_elements(keys)}
    relinearisation = tiny_key.relinearisation_key()

    def run(resume: State | None = None) -> tuple[list[State], list[Progress]]:
        engine = evaluation_engine(tiny_key.parameters, keys, relinearisation, galois)
        states, seen, at = [], [], iter(range(10_000))

        def encrypt(values: Any) -> Any:
            # Once: encryption is randomised, evaluation is not.
            n = next(at)
            if n == len(sent):
                sent.append(tiny_key.encrypt(values))
            return engine.load(sent[n])

        def moved(grid: Any, to: Any) -> Any:
            return [[to(c) for c in row] for row in grid]

        def keep(state: State) -> None:
            states.append(State(state.step, *(moved(g, engine.dump) for g in (state.weights, state.before))))

        if resume:
            resume = State(resume.step, *(moved(g, engine.load) for g in (resume.weights, resume.before)))
        trainer, start = study.trainer(engine, encrypt), study.start(encrypt)
        weights = trainer.train(program, seen.append, start, keep, resume)
        if states:
            assert moved(weights, engine.dump) == states[-1].weights
        return states, seen

    states, seen = run()
    assert [s.step for s in states] == list(range(1, program.steps + 1))
    for state in states:
        again, rest = run(state)
        assert again == states[state.step :]
        assert rest == seen[len(seen) - len(rest) :]
        assert {p.step for p in rest} == set(range(state.step + 1, program.steps + 1))


def test_a_state_that_a_program_does_not_pass_through(tiny: Parameters, draw_study: Any) -> None:
    layout, program = Layout(512, 1, (4,), 2, 1, 1), Program(3, 1, (0, 0, 0), (1.0,) * 3)
    e = ClearEngine(tiny, layout.keys())
    states: list[State] = []
    study = draw_study(layout, program, (100, 8, 1), 1)
    study.trainer(e, e.encrypt).train(program, on_step=states.append)
    first, second, _ = states
    for wrong in (
        State(0, [], []),
        State(4, second.weights, first.weights),
        State(1, second.weights, first.weights),
        State(2, second.weights, []),
        State(2, first.weights, first.weights),
        State(2, [*second.weights, *second.weights], first.weights),
    ):
        with pytest.raises(PlanError, match="a state"):
            study.trainer(e, e.encrypt).train(program, resume=wrong)


def test_a_program_says_its_levels() -> None:
    assert Program(3, 7, (0, 0, 0), (1.0,) * 3).levels == 11
    assert Program(4, 3, (0,) * 4, (1.0,) * 4).levels == 13
    assert Program(1, 7, (0,), (1.0,)).levels == 1
    assert Program(1, 7, (0,), (1.0,), started=True).levels == 5
    assert Program(2, 3, (0, 0), (1.0, 1.0), started=True).levels == 8
    assert Program(4, 1, (0,) * 4, (1.0,) * 4, (0.0, 0.25, 0.4, 0.5)).levels == 10


def test_a_program_says_how_many_ciphertexts_a_residual_takes() -> None:
    for degree, terms in ((1, 2), (3, 3), (5, 4), (7, 5)):
        assert Program(2, degree, (0, 0), (1.0, 1.0)).terms == terms
        # No second step, no polynomial.
        assert Program(1, degree, (0,), (1.0,)).terms == 1
        assert Program(1, degree, (0,), (1.0,), started=True).terms == terms


def test_a_start_where_none_belongs_and_none_where_one_does(tiny: Parameters, draw_study: Any) -> None:
    layout = Layout(512, 1, (4,), 2, 1, 1)
    for started in (True, False):
        program = Program(1, 3, (0,), (1.0,), started=started)
        study = draw_study(layout, program, (100, 8, 1), 1)
        e = ClearEngine(tiny, layout.keys())
        start = None if started else [[e.encrypt(np.zeros(512))]]
        with pytest.raises(PlanError, match="start from"):
            study.trainer(e, e.encrypt).train(program, start=start)


@pytest.mark.parametrize(
    "numbers",
    [
        (0, 7, (), ()),
        (1, 2, (0,), (1.0,)),
        (1, 9, (0,), (1.0,)),
        (2, 7, (0,), (1.0, 1.0)),
        (2, 7, (0, 0), (1.0,)),
        (1, 7, (-1,), (1.0,)),
        (1, 7, (1,), (1.0,)),
        (2, 7, (1, 0), (1.0, 1.0)),
        (2, 7, (0, 0), (1.0, 1.0), (0.5,)),
        (2, 7, (0, 0), (1.0, 1.0), (0.0, 0.5, 0.5)),
    ],
)
def test_programs_that_cannot_be(numbers: tuple) -> None:
    with pytest.raises(PlanError):
        Program(*numbers)


def test_too_few_levels_are_refused_before_any_work(tiny: Parameters, draw_study: Any) -> None:
    layout, program = Layout(512, 1, (4,), 2, 1, 1), Program(4, 7, (0,) * 4, (1.0,) * 4)
    e = ClearEngine(tiny, layout.keys())
    study = draw_study(layout, program, (10, 4, 1), 0)
    with pytest.raises(PlanError, match="4 steps need 16 levels, the parameters have 11"):
        study.trainer(e, e.encrypt).train(program)
    assert not e.ledger.counts


@pytest.mark.parametrize("batch", [1, 4, 48])
def test_progress_counts_to_its_total(
    tiny: Parameters, draw_study: Any, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BATCH", batch)
    layout, program = Layout(512, 2, (8, 4), 4, 3, 2), Program(3, 3, (0, 0, 0), (1.0,) * 3)
    e = ClearEngine(tiny, layout.keys())
    study = draw_study(layout, program, (600, 20, 3), 0)
    seen: list[Progress] = []
    study.trainer(e, e.encrypt).train(program, seen.append)
    assert [p.done for p in seen] == list(range(1, seen[-1].total + 1))
    assert len({p.total for p in seen}) == 1
    assert [p.step for p in seen] == sorted(p.step for p in seen)
    assert {p.step for p in seen} == {1, 2, 3}
    assert {p.phase for p in seen if p.step == 1} == {"backward", "update"}
    assert {p.phase for p in seen if p.step == 2} == {"forward", "residual", "backward", "update"}


def test_batches_of_row_blocks_change_no_more_than_rounding(
    tiny: Parameters, draw_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, program = Layout(512, 2, (8, 4), 4, 5, 2), Program(2, 3, (0, 0), (1.0, 0.9))
    e = ClearEngine(tiny, layout.keys())
    study = draw_study(layout, program, (1200, 20, 3), 0)
    heads = []
    for batch in (1, 4, 48):
        monkeypatch.setattr(blocks, "BATCH", batch)
        heads.append(study.head(study.trainer(e, e.encrypt).train(program), e.decrypt))
    for head in heads[1:]:
        np.testing.assert_allclose(head, heads[0], atol=1e-12)


def test_a_trainer_lowers_its_data_and_so_trains_once(tiny: Parameters, draw_study: Any) -> None:
    layout, program = Layout(512, 2, (8,), 4, 1, 1), Program(2, 3, (0, 0), (1.0, 1.0))
    e = ClearEngine(tiny, layout.keys())
    data, residuals = draw_study(layout, program, (100, 16, 2), 8).encrypted(e.encrypt)
    trainer = Trainer(Blocks(e, layout, data, residuals))
    trainer.train(program)
    # The second step's backward product is the last to use the data: logits and cubic took three levels.
    assert {c.level for c in data.values()} == {11 - 4}
    with pytest.raises(EngineError, match=r"level 7 cannot become level 11"):
        trainer.train(program)


def test_one_step_leaves_the_data_as_they_came(tiny: Parameters, draw_study: Any) -> None:
    layout, program = Layout(512, 2, (8,), 4, 1, 1), Program(1, 7, (0,), (1.0,))
    e = ClearEngine(tiny, layout.keys())
    data, residuals = draw_study(layout, program, (100, 16, 2), 8).encrypted(e.encrypt)
    Trainer(Blocks(e, layout, data, residuals)).train(program)
    assert {c.level for c in data.values()} == {11}
    assert not [key for key in e.ledger.counts if key[0] == "switch"]


def test_lanes_do_not_leak(tiny: Parameters, draw_study: Any) -> None:
    layout, program = Layout(512, 4, (8,), 4, 1, 1), Program(3, 3, (0, 0, 0), (1.0,) * 3)
    study = draw_study(layout, program, (100, 16, 4), 5)
    e = ClearEngine(tiny, layout.keys())

    def head() -> Any:
        return study.head(study.trainer(e, e.encrypt).train(program), e.decrypt).copy()

    before = head()
    study.y[:, 2] *= -3
    after = head()
    np.testing.assert_array_equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])
    assert np.abs(before[:, 2] - after[:, 2]).max() > 0.1
