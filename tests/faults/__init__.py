"""The fault suite: see __main__."""
