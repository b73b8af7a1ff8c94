"""Memory told is memory used."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import kilograd as kg
from kilograd import zoo
from kilograd.codegen import project
from kilograd.execution.build import SESSION_FUNCTIONS, write_files
from kilograd.execution.toolchain import toolchain
from tests.agreement.networks import BIG_M7

CASES = [
    ("mlp", kg.update.all(), "cortex-m7-256k"),
    ("mlp", kg.update.biases(1), "nrf52840"),
    ("tcn", kg.update.all(), "cortex-m7-256k"),
    ("tcn", kg.update.last(1), "rp2040"),
    ("se_net", kg.update.all(), BIG_M7),
    ("se_net", kg.update.last(2), "stm32f746"),
]


@pytest.mark.parametrize(("name", "update", "device"), CASES)
def test_the_parts_are_what_the_linker_placed(name, update, device, tmp_path: Path):
    model, example = zoo.create(name)
    program = kg.compile(model, example, device=device, update=update)
    write_files({**program.sources.files, "harness.c": project.harness(program.sources)}, tmp_path)
    elf = toolchain("zig").firmware(
        [tmp_path / f"{program.name}.c", tmp_path / "harness.c"],
        [tmp_path],
        program.device,
        tmp_path / "firmware.elf",
        exports=SESSION_FUNCTIONS,
        extra_flags=("-fno-strict-aliasing", "-DKG_HARNESS_INSTANCE"),
    )
    memory, sram = program.memory, program.device.memory_map()
    with elf.open("rb") as stream:
        image = ELFFile(stream)
        in_sram = in_flash = 0
        for section in image.iter_sections():
            if not section["sh_flags"] & 2 or not section["sh_size"]:  # SHF_ALLOC
                continue
            if section["sh_addr"] >= sram.sram_base:
                in_sram += section["sh_size"]
                if section["sh_type"] != "SHT_NOBITS":
                    in_flash += section["sh_size"]
            else:
                in_flash += section["sh_size"]
        network = image.get_section_by_name(".symtab").get_symbol_by_name("kg_session_net")[0]
    assert network["st_size"] == memory.arena_bytes + max(memory.state_bytes, 4)
    assert memory.arena_bytes + memory.state_bytes + memory.data_bytes == in_sram
    # Alignment between sections may leave a few bytes of flash unused.
    assert in_flash <= memory.flash_bytes <= in_flash + 64
    assert memory.lower_bound_bytes <= memory.arena_bytes
    assert memory.sram_bytes == sum(
        (memory.arena_bytes, memory.state_bytes, memory.data_bytes, memory.stack_bytes)
    )
    text = program.summary()
    for part in (memory.sram_bytes, memory.arena_bytes, memory.stack_bytes, memory.flash_bytes):
        assert f"{part:,}" in text


@pytest.mark.parametrize(("name", "update", "device"), CASES)
def test_the_stack_measured_is_within_the_bound(name, update, device):
    model, example = zoo.create(name)
    program = kg.compile(model, example, device=device, update=update)
    board = program.on_emulator()
    used = 0
    for run in (lambda: board.predict(example), lambda: board.train_step(example, 0)):
        run()
        used = max(used, board.stack_bytes or 0)
    assert 0 < used <= program.memory.stack_bytes


def test_a_program_runs_in_exactly_the_memory_it_asks_for():
    """The emulated device has not one byte more than the program's figures."""
    model, example = zoo.create("mlp")
    roomy = kg.compile(model, example, device="cortex-m7-256k")
    needed = -(-roomy.memory.sram_bytes // 8) * 8
    tight = roomy.device.model_copy(update={"name": "tight", "sram_bytes": needed})
    program = kg.compile(model, example, device=tight)
    board, host = program.on_emulator(), program.on_host()
    for _ in range(3):
        assert board.train_step(example, 1) == host.train_step(example, 1)
    smaller = tight.model_copy(update={"sram_bytes": needed - 8})
    unplanned = kg.Planning(recompute=False, page=False)
    with pytest.raises(kg.InfeasibleError, match="more than"):
        kg.compile(model, example, device=smaller, planning=unplanned)


def test_nothing_is_written_when_it_does_not_fit(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, example = zoo.create("mlp")
    with pytest.raises(kg.InfeasibleError):
        kg.compile(model, example, device="cortex-m7-256k", budget=kg.Budget(sram="4KB"))
    assert list(tmp_path.iterdir()) == []
