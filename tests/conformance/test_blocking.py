"""The same bits from every blocking: wide vectors as on this host, narrow tiles as on a
microcontroller.
"""

from __future__ import annotations

import pytest

from tests.conformance.c_cases import Case, all_cases, build, run

BLOCKED = ("linear", "conv", "depthwise", "q_weight_step")
CASES = [case for case in all_cases() if case.name.startswith(BLOCKED)]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    # Each case knows its place in the library of all cases, so both hold them all.
    cases = all_cases()
    wide = build(cases, tmp_path_factory.mktemp("wide"))
    return wide, build(cases, tmp_path_factory.mktemp("narrow"), ("-DKG_NARROW",))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bits_do_not_depend_on_blocking(case: Case, libraries):
    results = [run(library, case, ()) for library in libraries]
    if results[0][0]:
        assert results[1][0]  # a failure, behind which outputs are unspecified
        return
    for wide, narrow in zip(results[0][1], results[1][1], strict=True):
        assert wide.tobytes() == narrow.tobytes()
