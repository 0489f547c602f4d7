"""Pure rules: states, specs, ordering, retry, time. No I/O."""
