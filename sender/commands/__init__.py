"""The commands of ``gofax-sender``, a file for each group of them."""
