"""One device's walk through its program: the worker loop, its stages, channels, clocks and memory accounting."""
