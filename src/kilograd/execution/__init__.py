"""Building the generated C and running it: toolchains, image analysis, emulator."""
