"""Associations whose threads wake for what comes, in place of pynetdicom's polling loops. See README.md."""
