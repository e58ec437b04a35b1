"""The families: one file each; a file here imports no other file here."""
