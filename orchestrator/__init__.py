"""What to run, where it stands, who may change it. No torch in here."""
