"""The names of the lines of a history, with the parts that they are made of."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.analysis.history.storage import CaseId
from benchmarks.analysis.reading.setting import Case, Setting


class LineName(str):
    """The name of a line as its text: a case's key, or that of a series or of a pair of kernels.

    Attributes:
        kernels: The kernels in the name, two of a crossover.
        series: The name without the length of its case, which all lengths share.
        seq_len: That length; None of exponents and crossovers.
        head: The part of the text that names subject and kernels, in words.
        tail: The rest of the text.
    """

    kernels: tuple[str, ...]
    series: str
    seq_len: int | None
    head: str
    tail: str


def is_ceiling(name: LineName) -> bool:
    """Whether a line is of a ceiling of the device, "ceiling-copy" or another."""
    return bool(name.kernels) and all(kernel.startswith("ceiling-") for kernel in name.kernels)


def _line_name(
    kernels: tuple[str, ...], setting: Setting, seq_len: int | None = None, behind: str = ""
) -> LineName:
    """The name of a case, or without a length of a series or pair, with what stands `behind` it."""
    kernel, layer = " against ".join(kernels), setting.subject == "layer"
    width = "" if setting.value_dim in (None, setting.head_dim) else f"-V{setting.value_dim}"
    width += "" if setting.kv_heads == setting.heads else f"-KV{setting.kv_heads}"
    width += "" if setting.query_len is None else f"-Q{setting.query_len}"
    width += f"-P{setting.ranks}" if (setting.ranks or 1) > 1 else ""
    prefix = "layer/" if layer else ""

    def tail(length: str) -> str:
        shape = f"B{setting.batch}-H{setting.heads}{length}-D{setting.head_dim}{width}"
        return f"{setting.mode}/{setting.phase}/{setting.device}/{setting.dtype}/{shape}{behind}"

    own = tail("" if seq_len is None else f"-N{seq_len}")
    name = LineName(f"{prefix}{kernel}/{own}")
    name.kernels, name.seq_len = kernels, seq_len
    name.series = f"{prefix}{kernel}/{tail('')}"
    name.head, name.tail = f"layer, {kernel}" if layer else kernel, own
    return name


def case_names(cases: Sequence[CaseId], known: Sequence[Case]) -> list[LineName]:
    """The names of cases: their keys, with device and clock where another case has the same key."""
    keys = [key for key, _, _ in cases]
    return [
        _case_name(key, case, "" if keys.count(key) == 1 else f" ({device}, {clock} clock)")
        for (key, clock, device), case in zip(cases, known, strict=True)
    ]


def _case_name(key: str, case: Case, behind: str) -> LineName:
    name = _line_name((case.kernel,), case.setting, case.seq_len, behind)
    if name == key + behind:
        return name
    # A kernel of another family, whose key is made from fewer fields.
    other = LineName(key + behind)
    other.kernels, other.series, other.seq_len = (case.kernel,), str(other), None
    other.head, other.tail = case.kernel, key + behind
    return other


def series_name(case: LineName, setting: Setting, kernels: tuple[str, ...], behind: str = "") -> LineName:
    """The name of a series or a pair of kernels, from that of one of its cases."""
    ambiguity = case.series.removeprefix(_line_name(case.kernels, setting).series)
    return _line_name(kernels, setting, behind=ambiguity + behind)
