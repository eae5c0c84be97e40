"""Lesson 11: real work of other fields, as stages for a flow."""
