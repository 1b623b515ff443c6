"""``python -m sender`` is ``gofax-sender``."""

from sender.cli import main

main(prog_name="gofax-sender")
