"""Data sets by name: download with the user's own credentials, check, unpack."""
