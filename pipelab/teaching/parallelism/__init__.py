"""Lesson 10: ways to share a model among devices, as a picture and as runs on meshes."""
