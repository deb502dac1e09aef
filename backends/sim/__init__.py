"""The simulator: every hook of the contract, no storage behind it but a directory.

Read ``plugin.py`` first; it is also the example of a complete backend.
"""
