"""Pure rules: what is decided, without a clock, without chance, without I/O."""
