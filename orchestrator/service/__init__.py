"""Use cases: what the command line, the Python client and the node may ask for."""
