"""The node side: what happens between a source that a backend produced and a path in a pod.

Formatting, mounting, growing, binding and freezing are here and nowhere else.
"""
