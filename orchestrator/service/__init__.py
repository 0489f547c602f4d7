"""Use cases: what the command line, the web and the node may ask for."""
