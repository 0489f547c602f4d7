"""Golden files: what `--json` prints, and the shape of each payload. `make golden` writes them anew."""
