"""Texts, tables and notebooks that nobody would write, a few in make test and thousands in make test-full."""
