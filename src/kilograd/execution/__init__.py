"""Building and running the generated C: toolchains, host sessions, the emulator."""
