"""Plain PyTorch training: it knows no queue and no database."""
