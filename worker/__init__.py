"""How a job is run: the node, its slots, and the training they start."""
