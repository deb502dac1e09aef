"""Requests become values, values become responses: protobuf ends in this package, and requests are judged here.

Each ``decode`` checks the required fields first, then sizes and forms, then what the backend declares,
so that INVALID_ARGUMENT comes before any look-up (CSI specification, "Error Scheme").
"""
