"""Hostile peers at both ends: what is tried in the field, and what comes of it here.

`docs/abuse-cases.md` is the catalogue: a row for each flaw, with the tests of this directory.
"""
