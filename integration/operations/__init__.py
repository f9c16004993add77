"""For senders and operators: what became of deliveries, replay, health, housekeeping."""
