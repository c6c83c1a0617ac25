"""Decode and prefill are measured as a model calls them: from a cache or a state, checked, and counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, State, get_kernel, make_inputs, register_kernel
from attention.kernels.forms.linear import step_of
from attention.kernels.linear_explicit import linear_explicit
from attention.kernels.references import reference_of
from attention.kernels.registry import _KERNELS, SOUGHT
from benchmarks.computed import compute_short
from benchmarks.grid import build_cases, build_layer_cases
from benchmarks.inference import kept_bytes, state_of, step_behind
from benchmarks.ledger import Ledger
from benchmarks.measure import _of_few_heads, _shortened
from benchmarks.selection import PRESETS, Selection, Shape
from benchmarks.subjects import SUBJECTS, input_bytes
from tests.concluded import conclude, console, find
from tests.own import softmax_attention
from tests.sessions import rows, run

pytestmark = pytest.mark.usefixtures("one_thread")
OPERATOR = SUBJECTS["operator"]
DECODE = Case("linear-explicit", "causal", 300, "decode", heads=4, head_dim=16, kv_heads=2)
KERNELS = ("linear-explicit", "standard-explicit", "standard-sdpa")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels registered by a test are forgotten after it."""
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))


def errors(case: Case) -> Any:
    reference = reference_of(get_kernel(case.kernel))
    assert reference
    return OPERATOR.errors(case, reference)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("phase", "query_len"), [("decode", None), ("decode", 4), ("prefill", None)])
def test_a_decode_and_a_prefill_compute_what_the_oracle_does(
    name: str, phase: str, query_len: int | None
) -> None:
    case = replace(DECODE, kernel=name, phase=phase, query_len=query_len)
    assert OPERATOR.supports(case) is None
    assert errors(case).within(case)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("phase", "query_len"), [("decode", None), ("decode", 4), ("prefill", None)])
def test_the_least_bytes_of_theory_are_those_of_the_tensors(
    name: str, phase: str, query_len: int | None
) -> None:
    case = replace(DECODE, kernel=name, phase=phase, query_len=query_len, dtype="bfloat16", value_dim=8)
    costs = OPERATOR.costs(case)
    assert costs and costs.min_bytes == OPERATOR.prepare(case).min_bytes


def test_a_state_is_read_and_written_and_keys_and_values_are_read() -> None:
    linear, standard = DECODE, replace(DECODE, kernel="standard-sdpa")
    q_and_o = 2 * 4 * 16 * 4
    state, token = 2 * 16 * 17 * 4, 2 * 2 * 16 * 4
    for case, kept, least in (
        (linear, state, 2 * state + token + q_and_o),
        (standard, 300 * token, 300 * token + q_and_o),
    ):
        costs = OPERATOR.costs(case)
        assert costs and (kept_bytes(case), costs.min_bytes) == (kept, least)
    assert kept_bytes(replace(linear, phase="forward")) is None
    q, k, v = make_inputs(linear)
    assert state_of(get_kernel("linear-explicit"), k, v).bytes == state
    assert input_bytes(linear) == sum(x.nbytes for x in (q, k, v)) + state


@pytest.mark.parametrize(
    ("name", "power"), [("linear-explicit", 0), ("standard-explicit", 1), ("standard-sdpa", 1)]
)
def test_counts_of_a_decode_grow_like_the_context_or_not_at_all(name: str, power: int) -> None:
    short, long = (replace(DECODE, kernel=name, seq_len=n) for n in (512, 4096))
    few, many = OPERATOR.costs(short), OPERATOR.costs(long)
    assert few and many and many.flops == 8**power * few.flops
    assert kept_bytes(long) == 8**power * (kept_bytes(short) or 0)
    counted = SUBJECTS["operator"].costs(replace(short, query_len=4))
    assert counted and counted.flops == pytest.approx(4 * few.flops, rel=0.01)


def test_the_state_of_a_context_is_the_same_in_blocks_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, k, v = make_inputs(replace(DECODE, dtype="float64"))
    whole = state_of(get_kernel("linear-explicit"), k, v)
    monkeypatch.setattr("benchmarks.inference.BLOCK", 7)
    for one, other in zip(whole, state_of(get_kernel("linear-explicit"), k, v), strict=True):
        torch.testing.assert_close(one, other)


def test_a_state_written_in_place_stays_finite_over_thousands_of_calls() -> None:
    call = step_behind(get_kernel("linear-explicit"), *make_inputs(replace(DECODE, seq_len=8)))
    state = call()[1]
    before = state.z.clone()
    for _ in range(3000):
        out, same = call()
    assert same is state and out.isfinite().all() and state.S.isfinite().all()
    # Each call adds the same: it grows by a constant, far from what float32 holds.
    assert float((state.z / before).max()) < 1e5


@pytest.mark.usefixtures("own")
def test_what_is_checked_of_a_decode_is_the_step_that_is_timed() -> None:
    def step(q: Tensor, k: Tensor, v: Tensor, state: State, **options: Any) -> tuple[Tensor, State]:
        out, state = step_of(linear_explicit, q, k, v, state, **options)
        return 1.01 * out, state

    register_kernel("linear-odd", linear_explicit, step=step)
    assert errors(replace(DECODE, kernel="linear-odd", phase="forward")).within(DECODE)
    assert not errors(replace(DECODE, kernel="linear-odd")).within(DECODE)


@pytest.mark.usefixtures("own")
def test_a_function_of_a_users_own_decodes_if_it_takes_one_query_against_all_keys() -> None:
    def both_ways(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax_attention(q, k, v)

    for name, function in (("mine", softmax_attention), ("both-ways", both_ways)):
        register_kernel(name, function, reference="standard")
        case = Case(name, "causal", 50, "decode", heads=2, head_dim=8)
        assert OPERATOR.supports(case) is None and errors(case).within(case)
    register_kernel("sought", softmax_attention, reference=SOUGHT)
    found = compute_short(replace(case, kernel="sought"), replace(case, kernel="sought"))
    assert [one.reference.name for one in found.candidates] == ["softmax attention"]
    register_kernel("square", lambda q, k, v, causal: (q + k) * v, reference=SOUGHT)
    with pytest.raises(Exception, match="size"):
        OPERATOR.prepare(replace(case, kernel="square", query_len=3)).call()


@pytest.mark.usefixtures("own")
def test_kernels_without_a_state_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("window-sdpa", "linear-decay-explicit"):
        plain = replace(DECODE, kernel=name, kv_heads=0)
        assert "as many keys as queries" in str(OPERATOR.supports(plain))
        assert "keeps no state and no cache" in str(OPERATOR.supports(replace(plain, phase="prefill")))
        assert OPERATOR.supports(replace(plain, phase="forward")) is None
    register_kernel("linear-short", lambda q, k, v, causal: linear_explicit(q, k, v, causal=causal))
    case = replace(DECODE, kernel="linear-short")
    assert OPERATOR.supports(case) is None  # a user's own is tried
    monkeypatch.setattr("benchmarks.inference.BUILT_IN", {"linear-short"})
    assert OPERATOR.supports(case) == "linear-short takes and returns no state"
    assert OPERATOR.supports(replace(case, phase="forward")) is None


def test_the_decode_grid_holds_three_batches_of_one_token_at_contexts_to_32768() -> None:
    cases = build_cases(Selection(PRESETS["default"], ["cpu"], kernels=["standard-sdpa"], phases=["decode"]))
    assert Counter(case.batch for case in cases) == {1: 8, 8: 8, 64: 8}
    assert {case.seq_len for case in cases} == {256 * 2**power for power in range(8)}
    assert {(case.mode, case.queries) for case in cases} == {("causal", 1)}


def test_shapes_queries_and_tokens_choose_the_cases() -> None:
    one = Selection(
        PRESETS["default"], ["cpu"], kernels=["standard-sdpa"], phases=["decode", "prefill", "forward"],
        shapes=[Shape(1, 8, 64, 2), Shape(2, 4, 16)], seq_lens=[64, 128], tokens=[1, 4], query_lens=[64],
    )  # fmt: skip
    found = build_cases(one)
    ids = {(case.phase, case.key_heads, case.query_len, case.seq_len) for case in found if case.causal}
    assert ids == {
        *(("decode", kv, tokens, n) for kv in (2, 4) for tokens in (1, 4) for n in (64, 128)),
        *((phase, kv, None, 64) for phase in ("prefill", "forward") for kv in (2, 4)),
        *((phase, kv, 64, 128) for phase in ("prefill", "forward") for kv in (2, 4)),
    }
    assert {case.phase for case in found if not case.causal} == {"forward"}
    assert build_layer_cases(one) == []
    plain = build_layer_cases(replace(one, query_lens=None))
    assert {(case.phase, case.key_heads, case.heads) for case in plain} == {("forward", 4, 4)}


def test_a_short_comparison_keeps_the_group_of_heads_and_fewer_queries_than_keys() -> None:
    case = Case("linear-explicit", "causal", 8192, "forward_backward", heads=32, kv_heads=8, query_len=4096)
    short = _of_few_heads(_shortened(case, 8192))
    assert (short.seq_len, short.queries, short.heads, short.key_heads) == (600, 300, 8, 2)
    assert _of_few_heads(_shortened(replace(DECODE, query_len=1), 64)).queries == 1
    plain = Case("linear-explicit", "causal", 64, "forward_backward")
    few = _of_few_heads(_shortened(plain, 64))
    assert (few.heads, few.key_heads, few.queries) == (2, 2, 64)
    assert _of_few_heads(replace(plain, phase="forward")).heads == 8


def test_memory_that_is_predicted_holds_for_other_batches_and_groups() -> None:
    case = replace(DECODE, kernel="standard-sdpa")
    ledger = Ledger([case])
    ledger.learn_bytes(case, 1000)
    assert ledger.predict_bytes(case) >= input_bytes(case)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of decodes, training and prefill on the CPU."""
    file = tmp_path_factory.mktemp("decode") / "out.json"
    run(
        "--device=cpu", "--phase=decode,prefill,forward_backward", "--shape=1x4:2x16,2x4:2x16",
        "--kernel=standard-sdpa", "--kernel=linear-explicit", "--mode=causal", "--seq-len=64,128,256",
        "--repetitions=2", "--case-seconds=0.001", f"--benchmark-json={file}",
    )  # fmt: skip
    return file


@pytest.mark.slow
def test_a_real_decode_counts_exponents_1_and_0_and_says_where_it_is_cheaper(measured: Path) -> None:
    document = json.loads(measured.read_text())
    assert not document["not_measured"]
    records = [one for one in rows(document) if one["phase"] == "decode"]
    assert {(one["kv_heads"], one["query_len"]) for one in records} == {(2, 1)}
    for one in records:
        kept = 2 * 16 * 17 if one["family"] == "linear" else 2 * one["seq_len"] * 32
        assert one["cache_bytes"] == 4 * kept * one["batch"]
    summary = conclude(measured)
    for kernel, power in (("standard-sdpa", 1), ("linear-explicit", 0)):
        series = find(summary["series"], kernel=kernel, phase="decode", batch=2)
        assert series["flops_exponent"] == pytest.approx(power, abs=1e-12)
        assert series["cache_bytes_exponent"] == pytest.approx(power, abs=1e-12)
        # The query and the output are at most a share of 4 x 16 x 2 in 2 x 16 x 2 x 128.
        assert series["min_bytes_exponent"] == pytest.approx(power, abs=1 / 64)
    (contexts,) = summary["contexts"]
    phases = [(one["phase"], one["batch"]) for one in contexts["phases"]]
    assert phases == [(p, b) for p in ("forward_backward", "prefill", "decode") for b in (1, 2)]
    assert contexts["even_n"] == 17 / 2 and contexts["state_bytes"] == 2 * 16 * 17 * 4
    assert "the cache is as large at N = 9 " in " ".join(console(measured).split())
