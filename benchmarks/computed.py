"""The function that a case computes: the one its kernel claims, or the one that is found out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from attention import Case, Reference, get_kernel
from attention.kernels.references import REFERENCES, Errors, reference_of, tolerances
from attention.kernels.registry import FAMILIES, NONE, SOUGHT
from benchmarks.lengths import fault
from benchmarks.subjects import SUBJECTS


class Candidate(NamedTuple):
    """A function that a series may compute, and how far its result was from that."""

    reference: Reference
    errors: Errors


@dataclass(frozen=True)
class Computed:
    """What was found out of a series on a few tokens.

    Attributes:
        candidates: The functions that it may compute, the first the likeliest.
        fault: What is wrong with its result, if it claims a function.
        nearest: Of the functions that it was compared with, the one that its result was nearest to.
    """

    candidates: Sequence[Candidate] = ()
    fault: str | None = None
    nearest: Candidate | None = None


def compute_short(short: Case, case: Case) -> Computed:
    """Compare a series, on a few tokens, with what it claims, or with all functions that it may compute.

    Raises:
        Exception: Whatever the kernel raises.
    """
    if case.subject == "ceiling":
        return Computed()
    kernel, subject = get_kernel(case.kernel), SUBJECTS[case.subject]
    claimed = reference_of(kernel)
    if claimed:
        errors = subject.errors(short, claimed)
        return Computed([Candidate(claimed, errors)], _fault(short, case, errors))
    found = [
        Candidate(reference, subject.errors(short, reference))
        for reference in (_comparable(short) if kernel.reference == SOUGHT else ())
    ]
    nearest = min(found, key=lambda one: one.errors.output, default=None)
    return Computed([one for one in found if one.errors.within(case)], nearest=nearest)


def _comparable(case: Case) -> Iterator[Reference]:
    """The functions that need no other inputs than those of the case, and have its form."""
    given = get_kernel(case.kernel).extra_inputs(case)
    plain = case.key_heads == case.heads and case.queries == case.seq_len
    for name, reference in REFERENCES.items():
        if not (plain or name in FAMILIES):
            continue
        if set(reference.inputs or ()) <= set(given) and (case.causal or not reference.causal_only):
            yield reference


def _fault(short: Case, case: Case, errors: Errors) -> str | None:
    if errors.within(case):
        return None
    found = f"relative error {errors.output:.2g}"
    if case.backward:
        found += f", of the gradients {errors.gradients:.2g}"
    allowed = "{:.2g} and {:.2g}".format(*tolerances(case))
    return f"wrong result at N = {short.seq_len}: {found}; allowed are {allowed} for gradients"


def compute_long(case: Case, short: Computed) -> Candidate | None:
    """The function that a case computes at its own length; None where it is none that has an oracle.

    Raises:
        AssertionError: Its result is wrong: it is not what its kernel claims, or can be no result at all.
    """
    claimed = case.subject == "ceiling" or get_kernel(case.kernel).reference not in (SOUGHT, NONE)
    for one in short.candidates:
        found = fault(case, one.reference)
        if not found:
            return one
        if claimed:
            raise AssertionError(found)
    if case.subject != "ceiling" and (found := fault(case, None)):
        raise AssertionError(found)
    return None
