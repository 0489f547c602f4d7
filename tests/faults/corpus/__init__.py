"""Malformed inputs, made by code: each with the words that only its own guard says, and the words of the hint."""
