"""Fuzzing: whatever the bytes of a delivery, intake rejects it or it is planned.

seeds     valid deliveries to start from, with real ones if BUNDLES_DIR names a folder
values    hostile values
tree      mutates the structure of a delivery
raw       mutates its bytes, its compression and the request
cases     makes one case from a number: the same number, the same bytes
trial     runs one case through intake and planning, and checks both
growth    inputs of growing size that could take more than linear time
"""
