"""Hostile deliveries: whatever the bytes, the door refuses them or they are planned.

seeds     sound deliveries, real ones where BUNDLES_DIR names some
values    what does harm in the place of a value
tree      harm to the structure of a delivery
raw       harm to its bytes, and around them
cases     one delivery from a number: the same number, the same bytes
trial     one delivery through the door and the plan, and what must be true of both
growth    shapes that would take more than linear time, if anything did
"""
