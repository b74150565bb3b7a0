"""Servers and clients of the interoperability runs: how each is built, started and ended."""
