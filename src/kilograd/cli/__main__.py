"""`python -m kilograd.cli`."""

from kilograd.cli import main

main()
