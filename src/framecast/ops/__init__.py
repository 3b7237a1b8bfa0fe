"""Numeric kernels, each with a readable reference and fast twins chosen at run time."""
