"""What the validator and the problem's own checks reject, a case for each message."""

from __future__ import annotations

from pathlib import Path

import pytest

from kilograd.errors import InfeasibleError, InputError
from kilograd.planning.allocation import (
    Allocation,
    AllocationProblem,
    Buffer,
    bound_profile,
    load_csv,
    lower_bound_bytes,
    validate,
)

A = Buffer("a", 8, 0, 3, 4)
B = Buffer("b", 4, 2, 5, 4)
PROBLEM = AllocationProblem((A, B), capacity_bytes=16)


def test_a_right_answer_breaks_nothing() -> None:
    assert validate(PROBLEM, Allocation({"a": 0, "b": 8}, 12, 12, "by hand")) == []
    apart = AllocationProblem((A, Buffer("b", 4, 3, 5, 4)))
    assert validate(apart, Allocation({"a": 0, "b": 0}, 8, 8, "by hand")) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            Allocation({"a": 0, "b": 4}, 8, 8, ""),
            "buffers 'a' at [0, 8) and 'b' at [4, 8) share bytes, and both live at step 2",
        ),
        (Allocation({"a": 0}, 8, 8, ""), "buffer 'b' has no offset"),
        (Allocation({"a": 0, "b": 8, "c": 0}, 12, 8, ""), "offset 0 is for 'c', no buffer"),
        (Allocation({"a": -4, "b": 4}, 8, 8, ""), "buffer 'a' begins at -4, below the arena"),
        (
            Allocation({"a": 0, "b": 9}, 13, 12, ""),
            "buffer 'b' begins at 9, which is no multiple of its alignment of 4 bytes",
        ),
        (
            Allocation({"a": 0, "b": 16}, 20, 12, ""),
            "buffer 'b' ends at 20, 4 bytes above the capacity of 16",
        ),
        (
            Allocation({"a": 0, "b": 8}, 11, 11, ""),
            "the height is said to be 11 bytes, but the highest buffer ends at 12",
        ),
        (
            Allocation({"a": 0, "b": 8}, 12, 13, ""),
            "the lower bound of 13 bytes is above the height of 12 bytes",
        ),
    ],
)
def test_a_wrong_answer_breaks_one_rule(answer: Allocation, message: str) -> None:
    assert validate(PROBLEM, answer) == [message]


def test_a_pinned_buffer_elsewhere() -> None:
    problem = AllocationProblem((Buffer("in", 4, 0, 1, at_bottom=True),))
    broken = validate(problem, Allocation({"in": 4}, 8, 4, ""))
    assert broken == ["buffer 'in' is pinned to offset 0 but begins at 4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", 4, 3, 3), r"'x' lives during \[3, 3\)"),
        (("x", 4, 3, 1), r"'x' lives during \[3, 1\)"),
        (("x", 0, 0, 1), "'x' has 0 bytes"),
        (("x", 4, 0, 1, 0), "'x' asks for an alignment of 0 bytes"),
    ],
)
def test_ill_formed_buffers(arguments: tuple[str, int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Buffer(*arguments)


def test_repeated_names() -> None:
    with pytest.raises(InputError, match="1 buffer names occur more than once: a;"):
        AllocationProblem((A, B, A))


def test_two_buffers_on_one_bottom() -> None:
    pinned = (Buffer("x", 4, 0, 3, at_bottom=True), Buffer("y", 4, 2, 5, at_bottom=True))
    with pytest.raises(InputError, match=r"'x' and 'y' are both pinned .* step 2"):
        AllocationProblem(pinned)


def test_a_capacity_of_nothing() -> None:
    with pytest.raises(InputError, match="the capacity is 0 bytes"):
        AllocationProblem((A,), capacity_bytes=0)


def test_a_buffer_larger_than_the_arena() -> None:
    with pytest.raises(InfeasibleError, match=r"arena of 6 bytes: 'a' with 8 bytes.* 8 bytes"):
        AllocationProblem((A, B), capacity_bytes=6)


def test_offsets_cannot_be_changed() -> None:
    answer = Allocation({"a": 0}, 8, 8, "")
    with pytest.raises(TypeError):
        answer.offsets["a"] = 4  # type: ignore[index]


def test_reading_minimallocs_format(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    path.write_text("id,lower,upper,size\nx,0,3,8\ny,3,5,4\n")
    expected = (Buffer("x", 8, 0, 3), Buffer("y", 4, 3, 5))
    assert load_csv(path, 64) == AllocationProblem(expected, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,lower,size\nx,0,8\n", "no column upper"),
        ("", "no column id, lower, size, upper"),
        ("id,lower,upper,size\nx,0,three,8\n", "line 2: .* '0', 'three' and '8'"),
        ("id,lower,upper,size\nx,0,3\n", "line 2: .* '0', '3' and None"),
        ("id,lower,upper,size\nx,3,0,8\n", r"'x' lives during \[3, 0\)"),
    ],
)
def test_files_that_are_not_problems(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_csv(path)


def test_bounds_step_by_step() -> None:
    assert bound_profile((A, B)) == [(0, 8), (2, 12)]
    assert lower_bound_bytes(()) == 0


def test_bounds_count_alignment_where_it_is_certain() -> None:
    # Whichever of two 5-byte buffers is below keeps 8 bytes: 8 + 5.
    assert lower_bound_bytes((Buffer("x", 5, 0, 1, 4), Buffer("y", 5, 0, 1, 4))) == 13
    # A byte of alignment 1 may fill the gap.
    loose = (Buffer("x", 5, 0, 1, 4), Buffer("y", 5, 0, 1, 4), Buffer("z", 1, 0, 1))
    assert lower_bound_bytes(loose) == 13
