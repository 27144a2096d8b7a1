"""The lengths of ``--scaling``."""

LENGTHS = (256, 512, 1024, 2048, 4096)
# For what grows in proportion to the length.
LINEAR = (1024, 4096, 16384, 65536)
