"""Explanations of a program that pages say what lies in storage, and count it nowhere else."""

from __future__ import annotations

from tests.execution.storage_cases import SD_CARD, half_moved, moved, program


def test_a_value_in_storage_lies_there():
    compiled = half_moved("float", SD_CARD)
    page = next(iter(compiled.storage.pages[1]))
    for name in (page.name, f"{page.name.removesuffix('.page')}", "v9_weight", "v9_bias"):
        told = compiled.explain("value", name)
        wanted = "storage" if name == page.name or name == "v9_weight" else None
        assert (told.place == "storage") == (wanted == "storage"), name
        assert ("secondary storage" in str(told)) == (wanted == "storage")


def test_a_weight_in_storage_takes_no_sram():
    plain, compiled = program("float"), half_moved("float", SD_CARD)
    [before], [after] = (one.explain("weight", "9.weight").parameters for one in (plain, compiled))
    assert before.weight_bytes == before.optimizer_bytes == 4 * 72 * 4
    assert after.weight_bytes == after.optimizer_bytes == after.initial_bytes == 0
    assert after.stored_bytes == 2 * 4 * 72 * 4 and before.stored_bytes == 0
    assert "storage 2,304 B" in str(compiled.explain("weight", "9.weight"))
    assert after.why == before.why and after.path


def test_a_frozen_weight_in_storage_takes_no_flash():
    compiled = moved("int8", SD_CARD)
    [facts] = compiled.explain("weight", "hidden.1.weight").parameters
    assert facts.frozen_bytes == 0 and facts.stored_bytes == 48_000
    assert "storage    48,480 B" in str(compiled.explain("layer", "hidden.1"))


def test_the_state_in_sram_is_what_is_listed():
    from kilograd.planning.explain import describe_state

    text = describe_state(half_moved("float", SD_CARD).train.graph)
    assert "bias" in text and "weight" not in text
