"""Wrong options end a session before it begins, in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.sessions import ROOT

REFUSALS = {
    "--kernel=softmax": "--kernel 'softmax' matches no kernel; there are standard-explicit, ",
    "--mode=both": "--mode does not know 'both'; choose out of bidirectional, causal",
    "--phase=": "--phase got nothing; choose out of forward, forward_backward, prefill, decode",
    "--dtype=int8": "--dtype does not know 'int8'; choose out of float64, float32, bfloat16, float16",
    "--device=tpu": "--device does not know 'tpu'; choose out of cpu, cuda",
    "--seq-len=256,many": "--seq-len takes lengths above 0 with commas, like 256,512; got '256,many'",
    "--seq-len=0": "--seq-len takes lengths above 0",
    "--shape=8x64": "--shape takes batch x heads x head dimension, like 1x8x64, or with heads of keys",
    "--shape=1x8:3x64": "--shape takes a multiple of the heads of keys and values as heads of queries; got",
    "--shape=1x8:0x64": "or with heads of keys and values 1x32:8x128; got '1x8:0x64'",
    "--shape=1x8x64,": "got ''",
    "--query-len=0": "--query-len takes lengths above 0 with commas, like 256,512; got '0'",
    "--tokens=1,few": "--tokens takes lengths above 0 with commas, like 1,4; got '1,few'",
    "--tokens=4": "--tokens counts the new tokens of a decode; add --phase decode, or leave it out",
    "--phase=decode --query-len=4": "as many queries as new tokens; give --tokens, not --query-len",
    "--phase=decode --mode=bidirectional": "--phase decode is causal, as a new token sees those before it",
    "--phase=decode --tokens=512": "--tokens 512 counts among the keys of its context",
    "--repetitions=0": "--repetitions must be above 0 and at most 1e+06, got 0",
    "--layer-rounds=0": "--layer-rounds must be above 0 and at most 1e+06, got 0",
    "--rounds=0": "--rounds must be above 0 and at most 1e+06, got 0",
    "--rounds=2": "2 rounds of a case cannot be spread over 6 repetitions; give --rounds 6 or more, or",
    "--warmup=-1": "--warmup must be above 0 and at most 1e+06, got -1",
    "--warmup=few": "invalid int value: 'few'",
    "--times-from=missing.json": "--times-from: missing.json",
    "--case-seconds=-1": "--case-seconds must be above 0 and at most 1e+06, got -1.0",
    "--round-seconds=nan": "--round-seconds must be above 0 and at most 1e+06, got nan",
    "--kernel-from=gone.py:f": "--kernel-from gone.py:f: there is no file",
    "--grid=huge": "invalid choice: 'huge'",
}
# One process imports torch for all refusals, because a process for each takes seconds.
REFUSE_ALL = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
import pytest
for option in json.loads(sys.argv[1]):
    text = StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        code = pytest.main(["benchmarks", "--collect-only", *option.split()])
    print(json.dumps([option, int(code), text.getvalue()]))
"""


@pytest.fixture(scope="module")
def refusals() -> dict[str, tuple[int, str]]:
    done = subprocess.run(
        [sys.executable, "-c", REFUSE_ALL, json.dumps(list(REFUSALS))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return {option: (code, text) for option, code, text in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("option", REFUSALS)
def test_wrong_options_are_refused_in_one_sentence(option: str, refusals: dict[str, tuple[int, str]]) -> None:
    code, text = refusals[option]
    assert code == pytest.ExitCode.USAGE_ERROR
    assert REFUSALS[option] in text
    assert "Traceback" not in text
