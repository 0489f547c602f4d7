"""Pure rules: states, specs, ordering, retry, time. No I/O, but that `brokerurl` tries to open the files of a URL."""
