"""Lesson 11: the real work of its pipelines, a module for each field."""
