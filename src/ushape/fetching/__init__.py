"""Data sets by name: downloaded with the user's own account, checked, unpacked, put in order."""
